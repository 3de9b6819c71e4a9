"""The HTTP server: routes, admission, streaming, and the engine under supervision."""
