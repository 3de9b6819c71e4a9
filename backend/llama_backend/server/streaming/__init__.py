"""Server-sent events, and streams that a client can take up again."""
