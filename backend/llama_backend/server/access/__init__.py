"""Who may do what, and how much of it: keys, origins, queues, rates, bodies."""
