"""All that touches llama.cpp: weights, contexts, samplers, grammars, devices, and its log."""
