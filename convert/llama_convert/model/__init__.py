"""The Llama architecture: what its configurations say, how its tensors are named, and how GGUF wants them."""
