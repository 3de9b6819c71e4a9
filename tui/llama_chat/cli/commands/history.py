"""`llama-chat history`: the conversations on disk."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from llama_chat.cli import options
from llama_chat.cli.display import output
from llama_chat.cli.display.units import time_text
from llama_chat.errors import ExitCode, UsageError
from llama_chat.plain_text import cell, one_line

if TYPE_CHECKING:
    from llama_chat.history import Conversation, History, StoredMessage


@click.group("history")
def command() -> None:
    """List, show and delete conversations.

    An ID may be shortened as long as it is clear.
    """


@command.command("list")
@click.option("limit", "-n", "--limit", type=click.IntRange(min=0), default=50, help="How many, 0 for all.  [50]")
@options.as_json
def list_conversations(limit: int, json: bool) -> None:
    """List conversations, the newest first."""
    with closing(_history()) as history:
        found = history.list(limit or -1)
    if json:
        output.write_json([asdict(conversation) for conversation in found])
    elif found:
        output.write(output.table([("ID", "CHANGED", "MESSAGES", "TITLE"), *map(_row, found)]))


@command.command("show")
@click.argument("conversation_id", metavar="[ID]", required=False)
@options.as_json
def show(conversation_id: str | None, json: bool) -> None:
    """Write a conversation as Markdown; without ID the one that was written to last."""
    from llama_chat.cli.conversation import find

    with closing(_history()) as history:
        conversation = find(history, conversation_id)
        messages = history.messages(conversation.id, conversation.tip)
    if json:
        output.write_json({**asdict(conversation), "messages": [asdict(message) for message in messages]})
    else:
        output.write(_markdown(conversation, messages))


@command.command("delete")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("sure", "-y", "--yes", is_flag=True, help="Do not ask.")
def delete(ids: tuple[str, ...], sure: bool) -> None:
    """Delete conversations for good.

    The backend's KV states of all conversations go as well; the others are computed again when they go on.
    """
    with closing(_history()) as history:
        found = [history.conversation(ref) for ref in dict.fromkeys(ids)]
        if not sure and not _confirmed(found):
            raise click.exceptions.Exit(ExitCode.FAILURE)
        for conversation in found:
            history.delete(conversation.id)
    _forget()


def _forget() -> None:
    import asyncio

    from llama_chat.backends.launching import clear_kv_states

    setup = options.load({})
    asyncio.run(clear_kv_states(setup.settings, setup.paths))


def _history() -> History:
    from llama_chat.history import History

    return History(options.load({}).paths.history)


def _confirmed(found: list[Conversation]) -> bool:
    """Asks the person."""
    if not sys.stdin.isatty():
        raise UsageError("--yes is needed where nobody can be asked")
    for conversation in found:
        output.note(f"{cell(conversation.id)}  {cell(conversation.title)}")
    return click.confirm("Delete this for good?", err=True)


def _row(conversation: Conversation) -> tuple[str, ...]:
    return (
        conversation.id,
        time_text(conversation.updated),
        str(conversation.message_count),
        conversation.title or "(empty)",
    )


def _markdown(conversation: Conversation, messages: list[StoredMessage]) -> str:
    facts = [conversation.id, time_text(conversation.created), *filter(None, [conversation.model])]
    parts = [f"# {one_line(conversation.title or conversation.id)}", one_line(" · ".join(facts))]
    if conversation.system:
        parts += ["## system", conversation.system]
    for message in messages:
        parts += [f"## {one_line(message.role)}", *filter(None, [message.text.strip("\n"), _ending(message)])]
    return "\n\n".join(parts)


def _ending(message: StoredMessage) -> str:
    """How an answer ended, where it did not come to its own end."""
    if message.role != "assistant" or message.finish_reason == "stop":
        return ""
    return f"*({one_line(message.error or message.finish_reason or 'unfinished')})*"
