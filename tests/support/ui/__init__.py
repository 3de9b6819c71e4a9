"""A chat that is driven by key presses, on a backend that says what it is told to."""
