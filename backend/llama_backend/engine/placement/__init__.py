"""Where a model is put: memory, GPUs, threads."""
