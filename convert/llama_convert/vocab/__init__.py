"""Vocabularies: read from the files that come with a checkpoint, written the way that llama.cpp tokenises alike."""
