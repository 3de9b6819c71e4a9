"""Fetching from a hub: what a repository holds, which of it is wanted, and files that arrive whole or not at all."""
