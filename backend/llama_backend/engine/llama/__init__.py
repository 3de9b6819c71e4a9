"""Everything that uses llama.cpp: weights, contexts, samplers, grammars, devices, and its log."""
