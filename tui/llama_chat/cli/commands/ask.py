"""`llama-chat ask`: one answer on standard output."""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from llama_chat.cli import options
from llama_chat.cli.display import output
from llama_chat.cli.read_prompt import check_text, read_prompt


@click.command("ask")
@click.argument("prompt", nargs=-1)
@options.conversation
@options.json_schema
@options.setting("stream")
@options.as_json
def command(prompt: tuple[str, ...], **params: Any) -> None:
    """Write one answer to standard output.

    Text on standard input is put before the prompt, with a blank line between, as in
    `git diff | llama-chat ask "Write a commit message."`
    """
    setup = options.load(params)
    check_text(setup.settings.system, "the system prompt")
    text = read_prompt(" ".join(prompt), None if sys.stdin.isatty() else sys.stdin.buffer)
    answer_one(setup, text, params)


def answer_one(setup: options.Setup, prompt: str, params: dict[str, Any]) -> None:
    """Writes the answer; the backend is started before the modules that talk to it are imported."""
    from llama_chat.cli.chat_start import ChatStart

    start = ChatStart(setup, params)
    start.start_backend()
    from llama_chat.cli.printed_answer import PrintedAnswer

    json = params["json"]
    writer = output.AnswerWriter(io.StringIO() if json else sys.stdout)
    answer = PrintedAnswer(start, writer, streamed=setup.settings.stream)
    answer.run(prompt)
    if json:
        output.print_json(answer.facts())
    answer.check_schema()
