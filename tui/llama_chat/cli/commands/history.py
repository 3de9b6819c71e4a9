"""`llama-chat history`: the conversations on disk."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from llama_chat.cli import options
from llama_chat.cli.confirm_deletion import confirm_deletion, yes_flag
from llama_chat.cli.display import output
from llama_chat.cli.display.units import time_text
from llama_chat.plain_text import one_line, table_cell

if TYPE_CHECKING:
    from llama_chat.history import Conversation, History, StoredMessage


@click.group("history")
def command() -> None:
    """List, show and delete conversations.

    The beginning of an ID is enough if no other ID begins in the same way.
    """


@command.command("list")
@options.call_option(
    "limit", "-n", "--limit", kind=click.IntRange(min=0), default="50", metavar="N", help="How many to list; 0 is all."
)
@options.as_json
def list_conversations(limit: int, json: bool) -> None:
    """List conversations, the newest first."""
    with closing(_history()) as history:
        found = history.conversations(limit or -1)
    if json:
        output.print_json([asdict(conversation) for conversation in found])
    elif found:
        output.print_result(
            output.format_table([("ID", "CHANGED", "MESSAGES", "TITLE"), *map(conversation_row, found)])
        )


@command.command("show")
@click.argument("conversation_id", metavar="[ID]", required=False)
@options.as_json
def show(conversation_id: str | None, json: bool) -> None:
    """Write a conversation as Markdown.

    Without an ID, the conversation that was written to last is shown.
    """
    from llama_chat.cli.chat_start import find_conversation

    with closing(_history()) as history:
        conversation = find_conversation(history, conversation_id)
        messages = history.messages(conversation.id, conversation.tip)
    if json:
        output.print_json({**asdict(conversation), "messages": [asdict(message) for message in messages]})
    else:
        output.print_result(conversation_markdown(conversation, messages))


@command.command("delete")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@yes_flag
def delete(ids: tuple[str, ...], yes: bool) -> None:
    """Delete conversations for good.

    The KV states of all conversations are deleted from the backend too; those of the remaining conversations are
    computed again when they are needed.
    """
    with closing(_history()) as history:
        found = [history.conversation(ref) for ref in dict.fromkeys(ids)]
        if not yes:
            confirm_deletion([f"{table_cell(one.id)}  {table_cell(one.title)}" for one in found])
        for conversation in found:
            history.delete(conversation.id)
    _clear_kv_states()


def _clear_kv_states() -> None:
    import asyncio

    from llama_chat.backends.launching import clear_kv_states

    setup = options.load({})
    asyncio.run(clear_kv_states(setup.settings, setup.paths))


def _history() -> History:
    from llama_chat.history import History

    return History(options.load({}).paths.history)


def conversation_row(conversation: Conversation) -> tuple[str, ...]:
    """A conversation as a row of the table."""
    return (
        conversation.id,
        time_text(conversation.updated),
        str(conversation.message_count),
        conversation.title or "(empty)",
    )


def conversation_markdown(conversation: Conversation, messages: list[StoredMessage]) -> str:
    """A conversation as `show` writes it."""
    facts = [conversation.id, time_text(conversation.created), *filter(None, [conversation.model])]
    parts = [f"# {one_line(conversation.title or conversation.id)}", one_line(" · ".join(facts))]
    if conversation.system:
        parts += ["## system", conversation.system]
    for message in messages:
        parts += [f"## {one_line(message.role)}", *filter(None, [message.text.strip("\n"), _ending(message)])]
    return "\n\n".join(parts)


def _ending(message: StoredMessage) -> str:
    """How an answer ended, where the model did not end it."""
    if message.role != "assistant" or message.finish_reason == "stop":
        return ""
    return f"*({one_line(message.error or message.finish_reason or 'unfinished')})*"
