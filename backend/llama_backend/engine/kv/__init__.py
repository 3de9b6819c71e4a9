"""KV cells: whose they are, what is in them, and their states in RAM and on disk."""
