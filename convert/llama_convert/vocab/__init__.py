"""Vocabularies: read from the files of a checkpoint, and written so that llama.cpp tokenises in the same way."""
