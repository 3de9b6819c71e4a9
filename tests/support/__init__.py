"""What several tests use: programs that answer from a script, generated files, and ways to watch a process."""
