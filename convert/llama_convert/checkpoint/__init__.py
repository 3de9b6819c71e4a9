"""Checkpoints as they are published: which tensors they hold, and their rows, without a tensor library."""
