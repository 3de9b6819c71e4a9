"""What a person touches: the command line, the terminal interface, history and settings."""
