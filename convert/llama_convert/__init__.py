"""Model weights: fetches them, reads them, writes GGUF files, quantises and checks them."""
