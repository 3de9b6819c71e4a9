"""The routes of the HTTP API, a module for each kind, and what they share: bodies, contexts and responses."""
