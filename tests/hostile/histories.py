"""Histories that are damaged, foreign or made to harm: changed by SQL, by bytes, cut off."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from llama_chat.cli.commands.history import conversation_markdown, conversation_row
from llama_chat.cli.display.output import format_table
from llama_chat.errors import HistoryError
from llama_chat.history import History
from tests.hostile.trial import Check, Trial

_SECONDS = 20.0
"""After this long a history hangs; a case takes a few milliseconds."""

_VALUES = st.sampled_from(
    [
        *("NULL", "''", "'x'", "x'00ff'", "CAST(x'ff' AS TEXT)", "-1", "0", "1", "3", "9e999", "-9e999", "1e300"),
        *("9223372036854775807", "zeroblob(100000)", "id", "tip", "parent_id", "rowid", "char(27)", "'2026-01-01'"),
    ]
)
_COLUMNS = {
    "conversations": "id title model system created updated tip",
    "messages": "id conversation_id parent_id role text created model finish_reason error seed timings cached_tokens",
}
_WHERES = st.sampled_from(["", " WHERE id > 2", " WHERE id = (SELECT max(id) FROM messages)", " WHERE tip IS NULL"])
_UPDATES = st.sampled_from(sorted(_COLUMNS)).flatmap(
    lambda name: st.builds(
        lambda column, value, where: f"UPDATE {name} SET {column} = {value}{where}",
        st.sampled_from(_COLUMNS[name].split()),
        _VALUES,
        _WHERES,
    )
)
_SCHEMAS = st.sampled_from(
    [
        "CREATE TRIGGER t AFTER INSERT ON messages BEGIN DELETE FROM conversations; END",
        "CREATE TRIGGER t BEFORE UPDATE ON messages BEGIN SELECT RAISE(FAIL, 'no'); END",
        "CREATE VIEW v AS SELECT * FROM messages",
        "DROP TABLE messages",
        "DROP INDEX messages_by_parent",
        "ALTER TABLE messages RENAME COLUMN text TO words",
        "ALTER TABLE conversations ADD COLUMN more GENERATED ALWAYS AS (randomblob(10))",
        "CREATE TABLE other (x)",
        "CREATE UNIQUE INDEX one ON messages (conversation_id)",
        "CREATE TABLE sqlite_stat1x (x)",
        "ANALYZE",
        "PRAGMA user_version = 0",
        "PRAGMA user_version = 2",
        "PRAGMA user_version = -5",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA application_id = 7",
        "DELETE FROM messages WHERE id = 2",
        "DELETE FROM conversations",
        "INSERT INTO messages SELECT id + 9, conversation_id, id + 8, '', '', 0, '', 1, 1, 1, 1, 1, 1, 1 FROM messages",
        "UPDATE sqlite_schema SET sql = replace(sql, 'TEXT', 'BLOB')",
        "UPDATE sqlite_schema SET rootpage = 2",
        "UPDATE sqlite_schema SET sql = 'CREATE TABLE messages AS SELECT 1' WHERE name = 'messages'",
        "UPDATE sqlite_sequence SET seq = 9223372036854775807",
    ]
)
_PATCHES = st.tuples(
    st.one_of(st.integers(0, 120), st.integers(0, 1 << 16)), st.binary(min_size=1, max_size=4).map(bytes.hex)
)
_CASES = st.fixed_dictionaries(
    {
        "sql": st.lists(st.one_of(_UPDATES, _SCHEMAS), max_size=3),
        "patches": st.one_of(st.just([]), st.lists(_PATCHES, max_size=4)),
        "keep": st.one_of(st.just(1.0), st.just(1.0), st.floats(0, 1)),
    }
)


@contextmanager
def _opened(folder: Path) -> Iterator[Check]:
    """Each case runs in a process beside this one, so that one that hangs or dies is found and no more."""
    pools = [_pool()]

    def check(case: bytes) -> None:
        try:
            pools[0].submit(try_history, case, str(folder)).result(_SECONDS)
        except (TimeoutError, BrokenProcessPool) as error:
            _end(pools.pop())
            pools.append(_pool())
            raise AssertionError(f"the history hangs or ends the process: {error!r}") from error

    try:
        yield check
    finally:
        _end(pools[0])


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def _end(pool: ProcessPoolExecutor) -> None:
    for process in (pool._processes or {}).values():
        process.kill()
    pool.shutdown()


def try_history(case: bytes, folder: str) -> None:
    """Makes the file that a case describes, and does with it what the commands do."""
    path = Path(folder) / "history.db"
    for ending in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    _make(path, json.loads(case))
    before = path.read_bytes()
    try:
        history = History(path)
    except HistoryError as error:
        reason = str(error)
    else:
        _use(history)
        return
    assert str(path) in reason
    assert path.read_bytes() == before, "a file that was refused has been changed"


def _use(history: History) -> None:
    with closing(history):
        for use in (_read, _write, _delete):
            with suppress(HistoryError):
                use(history)


def _make(path: Path, case: dict[str, Any]) -> None:
    with closing(History(path)) as history:
        for title in ("one", "two"):
            talk, parent = history.create(title=title, model="m"), None
            for number in range(3):
                parent = history.add(talk.id, "user", f"{number} " * 300, parent_id=parent).id
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA writable_schema = ON")
        for statement in case["sql"]:
            with suppress(sqlite3.Error):
                database.execute(statement)
        with suppress(sqlite3.Error):
            database.commit()
    content = bytearray(path.read_bytes())
    for at, data in case["patches"]:
        where = at % max(len(content), 1)
        content[where : where + len(data) // 2] = bytes.fromhex(data)
    path.write_bytes(content[: int(len(content) * case["keep"])])


def _read(history: History) -> None:
    found = history.conversations()
    format_table([("ID", "CHANGED", "MESSAGES", "TITLE"), *map(conversation_row, found)])
    history.latest()
    for conversation in found:
        with suppress(HistoryError):
            conversation_markdown(conversation, history.messages(conversation.id, conversation.tip))


def _write(history: History) -> None:
    talk = history.latest() or history.create(title="new")
    message = history.add(talk.id, "user", "text", parent_id=talk.tip)
    history.update(message.id, "more", finish_reason="stop")


def _delete(history: History) -> None:
    for conversation in history.conversations():
        history.delete(conversation.id)


HISTORIES = Trial("histories", _CASES.map(lambda case: json.dumps(case).encode()), _opened, 150)
