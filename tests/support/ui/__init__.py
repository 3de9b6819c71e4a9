"""A chat that is driven by key presses, on a backend with scripted answers."""
