"""Listening sockets, TLS, and the limits on what a connection may send before its request is complete."""
