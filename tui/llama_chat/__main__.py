"""`python -m llama_chat`."""

from __future__ import annotations

from llama_chat.cli.main import main

main()
