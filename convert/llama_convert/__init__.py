"""Weights: fetch, read, write GGUF, quantise, check."""
