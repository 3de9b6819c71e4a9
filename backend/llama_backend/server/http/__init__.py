"""What is said over HTTP: one file for each kind of route, from the bytes of a body to those of a response."""
