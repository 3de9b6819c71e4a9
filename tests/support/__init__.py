"""What several tests stand on: programs that answer from a script, files that are made, ways to look."""
