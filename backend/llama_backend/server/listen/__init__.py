"""Listening sockets, TLS, and the limits on what is read from a connection before there is a request."""
