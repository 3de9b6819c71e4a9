"""Messages between server and engine.

`channel` is the socket. A thread reads commands (`intake`) and sorts the requests into `lanes`, whose threads cut texts
into tokens and put the results into `inbox` for the engine's thread. `outbox` sends the outputs of steps.
"""
