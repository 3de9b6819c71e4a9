"""The llama.cpp backend of llama-chat.

`client` sends HTTP requests to `server`, which runs one `engine` process for each loaded model. `wire` defines the
messages between them, `models` finds the installed models, and `host` is about this machine and its users.
"""
