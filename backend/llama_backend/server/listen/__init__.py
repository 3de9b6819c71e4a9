"""Sockets, TLS, and what is read of a connection before there is a request."""
