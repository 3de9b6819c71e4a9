"""Conversations on disk: one SQLite file, shared by all front ends of a user.

Messages are a tree: each has a parent, and the tip of a conversation is the last message of the branch that is shown.
WAL mode lets several processes read while one writes, and a `History` can be used from any thread. Times are Unix
seconds.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import ValidationError

from llama_chat.errors import ConversationNotFound, HistoryError
from llama_chat.history_file import advice, checked_row, open_file, transaction

if TYPE_CHECKING:
    from llama_backend.wire.api import Timings, Usage

_TITLE_LENGTH = 60

_CONVERSATION = """
    SELECT id, title, model, system, created, updated, tip,
        (SELECT count(*) FROM messages WHERE conversation_id = conversations.id)
    FROM conversations
"""
_MESSAGE_COLUMNS = (
    "id, conversation_id, parent_id, role, text, created, model, finish_reason, error,"
    " prompt_tokens, completion_tokens, cached_tokens, seed, timings"
)
_PATH = f"""
    WITH RECURSIVE path (id, parent, depth) AS (
        SELECT id, parent_id, 0 FROM messages WHERE conversation_id = ?1 AND id = ?2
        UNION ALL
        SELECT messages.id, messages.parent_id, depth + 1 FROM messages
        JOIN path ON messages.id = path.parent AND messages.id < path.id AND messages.conversation_id = ?1
    )
    SELECT {_MESSAGE_COLUMNS} FROM path JOIN messages USING (id) ORDER BY depth DESC
"""
"""A parent is older than its child. That condition ends the query even if a damaged file has a cycle of parents."""
_LAST_FIRST = "ORDER BY coalesce(tip, 0) DESC, updated DESC, id LIMIT ?"
"""Sorted by the ids of messages, which only grow, since the clock of the machine may have been wrong at times."""


@dataclass(frozen=True)
class Conversation:
    """A conversation as it was when it was read."""

    id: str
    title: str
    model: str
    system: str
    created: float
    updated: float
    tip: int | None
    """The last message of the branch that is shown; None while it is empty."""
    message_count: int
    """Messages of all branches."""


@dataclass(frozen=True)
class StoredMessage:
    """One message as it was when it was read; only an answer has the fields from `model` on."""

    id: int
    conversation_id: str
    parent_id: int | None
    role: str
    text: str
    created: float
    model: str = ""
    finish_reason: str | None = None
    """None while the answer is being written, and if the process that wrote it was killed."""
    error: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    seed: int | None = None
    timings: str | None = None
    """`llama_backend.wire.api.Timings` as JSON."""


class History:
    """The conversations in the file at `path`, which is created where there is none.

    Every method raises HistoryError where the file cannot be read or written. `Path(":memory:")` keeps them in memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        with self._mapped_errors():
            self._connection = open_file(path)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def create(self, *, model: str = "", system: str = "", title: str = "") -> Conversation:
        """A new conversation without messages."""
        now = time.time()
        values = (os.urandom(6).hex(), _one_line(title), model, system, now, now)
        with self._transaction() as database:
            database.execute("INSERT INTO conversations VALUES (?, ?, ?, ?, ?, ?, NULL)", values)
        return Conversation(*values, tip=None, message_count=0)

    def conversation(self, ref: str) -> Conversation:
        """The only conversation whose id begins with `ref`; raises ConversationNotFound for none and for several."""
        where = "WHERE substr(id, 1, length(?1)) = lower(?1) ORDER BY id LIMIT 2"
        found = self._select(where, ref) if ref else []
        if not found:
            raise ConversationNotFound(f"no conversation has the id {ref!r}; `llama-chat history list` shows them")
        if len(found) > 1:
            raise ConversationNotFound(f"several conversations have an id that begins with {ref!r}")
        return found[0]

    def latest(self) -> Conversation | None:
        """The conversation that was written to last."""
        return next(iter(self.conversations(limit=1)), None)

    def conversations(self, limit: int = 50) -> list[Conversation]:
        """The conversations that were written to last, the latest first; a negative `limit` is all."""
        return self._select(_LAST_FIRST, limit)

    def messages(self, conversation_id: str, tip: int | None = None) -> list[StoredMessage]:
        """The branch from the first message to `tip` (None is the conversation's own tip)."""
        tip = self.conversation(conversation_id).tip if tip is None else tip
        with self._reading() as database:
            found = [checked_row(StoredMessage, row) for row in database.execute(_PATH, (conversation_id, tip))]
        if found and found[0].parent_id is not None:
            text = f"message {found[0].id} follows one that is missing"
            raise HistoryError(f"the history {self.path} is damaged: {text}")
        return found

    def add(
        self, conversation_id: str, role: str, text: str, *, parent_id: int | None, model: str = ""
    ) -> StoredMessage:
        """A new message below `parent_id`. It becomes the tip; the first question becomes the title."""
        now = time.time()
        values = (conversation_id, parent_id, role, text, now, model)
        title = _one_line(text) if role == "user" else ""
        with self._transaction() as database:
            cursor = database.execute(
                "INSERT INTO messages (conversation_id, parent_id, role, text, created, model)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                values,
            )
            database.execute(
                "UPDATE conversations SET tip = ?, updated = ?, title = iif(title = '', ?, title) WHERE id = ?",
                (cursor.lastrowid, now, title, conversation_id),
            )
        return StoredMessage(cursor.lastrowid or 0, *values)

    def update(
        self,
        message_id: int,
        text: str,
        *,
        finish_reason: str | None = None,
        error: str | None = None,
        model: str | None = None,
        usage: Usage | None = None,
        timings: Timings | None = None,
        seed: int | None = None,
    ) -> None:
        """Replaces the text of an answer, and those of its other fields that are given."""
        facts = {"finish_reason": finish_reason, "error": error, "model": model, "seed": seed}
        facts |= _usage_facts(usage) | _timing_facts(timings)
        given = {"text": text} | {name: value for name, value in facts.items() if value is not None}
        columns = ", ".join(f"{name} = ?" for name in given)
        with self._transaction() as database:
            database.execute(f"UPDATE messages SET {columns} WHERE id = ?", (*given.values(), message_id))
            database.execute(
                "UPDATE conversations SET updated = ? WHERE id = (SELECT conversation_id FROM messages WHERE id = ?)",
                (time.time(), message_id),
            )

    def delete(self, conversation_id: str) -> None:
        """Removes a conversation with all its branches; the bytes are overwritten."""
        with self._transaction() as database:
            database.execute("DELETE FROM conversations WHERE id = ?", (conversation_id,))

    def _select(self, clause: str, *values: str | int) -> list[Conversation]:
        with self._reading() as database:
            return [checked_row(Conversation, row) for row in database.execute(_CONVERSATION + clause, values)]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._mapped_errors():
            yield self._connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as database, transaction(database):
            yield database

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, OverflowError, UnicodeError, ValidationError) as error:
            raise HistoryError(f"the history {self.path} cannot be used: {error}{advice(error)}") from error


def _one_line(text: str) -> str:
    """The first line that is not blank, short enough for a list."""
    line = next((" ".join(line.split()) for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= _TITLE_LENGTH else line[: _TITLE_LENGTH - 1].rstrip() + "…"


def _usage_facts(usage: Usage | None) -> dict[str, Any]:
    if usage is None:
        return {}
    cached = (usage.prompt_tokens_details or {}).get("cached_tokens")
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": cached,
    }


def _timing_facts(timings: Timings | None) -> dict[str, Any]:
    if timings is None:
        return {}
    from llama_backend.wire.api import encode

    return {"timings": encode(timings).decode()}
