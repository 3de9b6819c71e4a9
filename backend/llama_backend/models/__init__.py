"""Models on this machine: which are installed, and what their GGUF headers say."""
