"""The way to a backend: an HTTP client, and the backend of this user, started where it is missing."""
