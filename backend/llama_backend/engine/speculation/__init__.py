"""Guesses of the next tokens, and when it pays to compute them along."""
