"""Guesses of the next tokens, and when they are worth computing."""
