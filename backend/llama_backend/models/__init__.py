"""The models on this machine: which are installed, and what the headers of their GGUF files say."""
