"""Which requests a server takes: keys, origins of web pages, and the limits of queue, rate and memory."""
