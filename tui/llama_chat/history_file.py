"""The file of the history: its format, and the checks before it is used.

A file that is not ours is neither changed nor used. It may be the database of another program or of a newer version,
have triggers or views, or be no file at all but a pipe.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from llama_chat.errors import HistoryError

_BUSY_SECONDS = 10.0
_LONGEST_VALUE = 64 << 20
"""Bytes of one text in the file."""
_SUFFIXES = ("", "-wal", "-shm", "-journal")
"""Endings of the names of the database and of the files that SQLite keeps beside it."""
_SCHEMA = "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
_ADVICE = {
    "SQLITE_NOTADB": "; move it elsewhere, and a new one is made",
    "SQLITE_CORRUPT": "; move it elsewhere, and a new one is made",
    "SQLITE_FULL": "; free some space, or continue with --no-log",
    "SQLITE_IOERR": "; check the disk, or continue with --no-log",
}
T = TypeVar("T")

MIGRATIONS = (
    """
    CREATE TABLE conversations (
        id TEXT PRIMARY KEY,
        title TEXT NOT NULL,
        model TEXT NOT NULL,
        system TEXT NOT NULL,
        created REAL NOT NULL,
        updated REAL NOT NULL,
        tip INTEGER REFERENCES messages (id) DEFERRABLE INITIALLY DEFERRED
    ) WITHOUT ROWID;
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
        parent_id INTEGER REFERENCES messages (id) DEFERRABLE INITIALLY DEFERRED,
        role TEXT NOT NULL,
        text TEXT NOT NULL,
        created REAL NOT NULL,
        model TEXT NOT NULL,
        finish_reason TEXT,
        error TEXT,
        prompt_tokens INTEGER,
        completion_tokens INTEGER,
        cached_tokens INTEGER,
        seed INTEGER,
        timings TEXT
    );
    CREATE INDEX conversations_by_time ON conversations (updated);
    CREATE INDEX messages_by_conversation ON messages (conversation_id);
    CREATE INDEX messages_by_parent ON messages (parent_id);
    """,
)
"""The script at index n brings a file from `user_version` n to n + 1."""


def open_file(path: Path) -> sqlite3.Connection:
    """The database, made or brought up to date; raises HistoryError, sqlite3.Error and OSError."""
    if str(path) != ":memory:":
        _prepare(path)
    database = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
        for setting in ("trusted_schema = OFF", "cell_size_check = ON", "foreign_keys = ON", "secure_delete = ON"):
            database.execute(f"PRAGMA {setting}")
        database.execute("PRAGMA synchronous = NORMAL")
        if sys.version_info >= (3, 12):
            database.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
        _migrate(database, path)
    except BaseException:
        database.close()
        raise
    return database


def checked_row(kind: type[T], row: tuple[Any, ...]) -> T:
    """A row as an object of a dataclass; raises msgspec.ValidationError for a column of the wrong type."""
    return msgspec.convert(dict(zip((field.name for field in fields(kind)), row, strict=True)), kind)  # type: ignore[arg-type]


def advice(error: Exception) -> str:
    """What a person can do about an error of SQLite, to be appended to its text."""
    name = getattr(error, "sqlite_errorname", "")
    return next((text for begin, text in _ADVICE.items() if name.startswith(begin)), "")


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """A transaction that takes the write lock at its start: of two writers one waits, and none fails half-way."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _prepare(path: Path) -> None:
    """Makes folder and file for this user alone.

    Raises HistoryError for a pipe or a device, on which SQLite would wait or read without end.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for file in [path.with_name(path.name + ending) for ending in _SUFFIXES]:
        with suppress(FileNotFoundError):
            found = file.stat()
            if not stat.S_ISREG(found.st_mode):
                raise HistoryError(f"{file} is not a file, so it cannot be the history; move it elsewhere")
            if found.st_mode & 0o077 and found.st_uid == os.geteuid():
                file.chmod(0o600)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))


def _migrate(database: sqlite3.Connection, path: Path) -> None:
    if _checked_version(database, path) == len(MIGRATIONS):
        return
    _use_wal(database)
    with transaction(database):
        version = _version(database)
        for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
            for statement in filter(str.strip, script.split(";")):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {number}")
    _checked_version(database, path)


def _checked_version(database: sqlite3.Connection, path: Path) -> int:
    """The version of the format; raises HistoryError where the tables are not those of that version."""
    with _snapshot(database):
        version, found = _version(database), set(database.execute(_SCHEMA))
    if version > len(MIGRATIONS):
        raise HistoryError(f"the history {path} was written by a newer llama-chat (format {version})")
    extra = [name for kind, name, _ in found if kind in ("trigger", "view")]
    if version < 0 or extra or not found >= _expected(version) or (version == 0 and found):
        raise HistoryError(f"{path} is another program's database, not our history; move it elsewhere")
    return version


def _expected(version: int) -> set[tuple[str, str, str]]:
    """The tables and indexes of a version."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for script in MIGRATIONS[:version]:
            database.executescript(script)
        return set(database.execute(_SCHEMA))
    finally:
        database.close()


@contextmanager
def _snapshot(database: sqlite3.Connection) -> Iterator[None]:
    """A transaction for reading: everything that is read is of one moment."""
    database.execute("BEGIN")
    try:
        yield
    finally:
        database.execute("ROLLBACK")


def _version(database: sqlite3.Connection) -> int:
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def _use_wal(database: sqlite3.Connection) -> None:
    """Switches to WAL; SQLite itself does not wait while another process does the same."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
