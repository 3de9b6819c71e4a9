"""The GGUF file format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md."""
