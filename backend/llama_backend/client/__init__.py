"""How a front end reaches a backend: the HTTP client, and finding or starting this user's own backend."""
