"""The llama.cpp backend of llama-chat: wire, client, server and engine."""
