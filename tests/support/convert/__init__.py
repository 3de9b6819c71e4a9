"""Checkpoints, vocabularies and a hub that are made here."""
