"""`llama-chat` alone: the chat in the terminal."""

from __future__ import annotations

import sys
from typing import Any

import click

from llama_chat.cli import options
from llama_chat.errors import UsageError


@click.command("chat")
@options.conversation
def command(**params: Any) -> None:
    """Chat in the terminal.

    If standard input is not a terminal, its text is answered as by `llama-chat ask`.
    """
    open_or_answer(params)


def open_or_answer(params: dict[str, Any]) -> None:
    """Opens the chat, or writes one answer where standard input is not a terminal."""
    setup = options.load(params)
    if not sys.stdin.isatty():
        from llama_chat.cli.commands.ask import answer_one
        from llama_chat.cli.read_prompt import read_prompt

        answer_one(setup, read_prompt("", sys.stdin.buffer), {**params, "json": False})
    elif not sys.stdout.isatty():
        raise UsageError("the chat needs a terminal; `llama-chat ask` writes an answer to a file or a pipe")
    else:
        _open_chat(setup, params)


def _open_chat(setup: options.Setup, params: dict[str, Any]) -> None:
    from llama_chat.cli.chat_start import ChatStart
    from llama_chat.ui.app import run_app

    start = ChatStart(setup, params)
    if start.continues and not setup.settings.log:
        raise UsageError("a chat that continues a conversation is kept in the history; --no-log is for new ones")
    run_app(setup.settings, start.backend(), start.history, start.conversation)
    if start.history:
        start.history.close()
