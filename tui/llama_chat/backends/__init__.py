"""The way to the backend that a person chose: on this machine, at a URL, or in a cluster."""
