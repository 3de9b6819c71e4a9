"""KV cells: which slot holds which, what is in them, and their states in RAM and on disk."""
