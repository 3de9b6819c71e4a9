"""The HTTP side: a module for each kind of route, and what they share, from a request's body to its response."""
