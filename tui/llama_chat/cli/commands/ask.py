"""`llama-chat ask`: one answer on standard output."""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from llama_chat.cli import options
from llama_chat.cli.display import output
from llama_chat.cli.prompt import check_text, read_prompt


@click.command("ask")
@click.argument("prompt", nargs=-1)
@options.conversation
@options.json_schema
@options.switch("stream", "--stream/--no-stream", help="Whether to write the answer as it comes.")
@options.as_json
def command(prompt: tuple[str, ...], **params: Any) -> None:
    """Answer PROMPT on standard output.

    Text on standard input is put before the prompt, with a blank line between, as in
    `git diff | llama-chat ask "Write a commit message."`
    """
    setup = options.load(params)
    check_text(setup.settings.system, "the system prompt")
    text = read_prompt(" ".join(prompt), None if sys.stdin.isatty() else sys.stdin.buffer)
    answer_one(setup, text, params)


def answer_one(setup: options.Setup, text: str, params: dict[str, Any]) -> None:
    """Answers `text`; the backend is started before what talks to it is imported."""
    from llama_chat.cli.conversation import Choice

    choice = Choice(setup, params)
    choice.start()
    from llama_chat.cli.answer import Answer

    json = params["json"]
    writer = output.AnswerWriter(io.StringIO() if json else sys.stdout)
    answer = Answer(choice, writer, streamed=setup.settings.stream)
    answer.run(text)
    if json:
        output.write_json(answer.facts())
    answer.check()
