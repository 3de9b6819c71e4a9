"""Who may send requests, and how many: keys, origins of web pages, the queue, rates, memory for bodies."""
