"""Quantisations: which there are, how large they become, and what guides them."""
