"""Server-sent events, and streams that a client can resume after a break."""
