"""The KV cells of llama.cpp: which slot holds which cells, and copies of them (states) in RAM and on disk.

`cache` manages the `slots` over the cells of a `memory`. `swap_policy` decides when a state is moved between a slot and
the `state_store`, which keeps states in RAM and writes them to `state_files`.
"""
