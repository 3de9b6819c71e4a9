"""The inference engine: one process, one model, one thread that decodes."""
