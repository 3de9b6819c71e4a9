"""A server to talk to, and an engine that computes nothing."""
