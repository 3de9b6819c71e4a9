"""What a model is computed on, by the hardware: the layout of KV cells, layers on GPUs, and the number of threads."""
