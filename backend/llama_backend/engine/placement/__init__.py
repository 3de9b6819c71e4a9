"""Where a model is computed: the layout of KV cells, layers on GPUs, and the number of threads."""
