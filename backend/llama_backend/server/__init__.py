"""The HTTP server.

A request is read from a socket (`listen`), checked against keys and limits (`access`), decoded and answered (`http`,
`streaming`), and computed by a supervised engine process (`engines`). `main` starts all of it, `lifecycle` ends it.
"""
