"""Speculative decoding: guessed tokens are computed in the same step as the sampled ones, where that saves time.

Guesses come from `lookup` in a sequence's own text, or from a `draft_model`, which `drafter` uses. `draft_history`
records for each sequence what became of them, and `acceptance` how likely they are to be right. `speculator` decides.
"""
