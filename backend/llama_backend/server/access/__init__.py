"""Access to a server: keys, origins of web pages, and the limits on queue, rate and memory."""
