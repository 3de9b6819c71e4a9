"""The format of the history, from one version to the next."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from llama_chat import history_file
from llama_chat.errors import HistoryError
from llama_chat.history import History
from llama_chat.history_file import MIGRATIONS

STEP = "ALTER TABLE conversations ADD COLUMN colour TEXT; UPDATE conversations SET colour = 'blue';"


def version(file: Path) -> int:
    with closing(sqlite3.connect(file)) as database:
        return int(database.execute("PRAGMA user_version").fetchone()[0])


def colours(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as database:
        return [row[0] for row in database.execute("SELECT colour FROM conversations")]


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    """A history in today's format with one conversation."""
    history = History(tmp_path / "history.db")
    history.create(title="kept")
    history.close()
    return history.path


def test_a_new_file_has_the_newest_format(old_file: Path) -> None:
    assert version(old_file) == len(MIGRATIONS)


def test_an_older_file_is_brought_up_to_date(old_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_file, "MIGRATIONS", (*MIGRATIONS, STEP))
    History(old_file).close()
    assert version(old_file) == len(MIGRATIONS) + 1
    assert colours(old_file) == ["blue"]
    History(old_file).close()
    assert colours(old_file) == ["blue"]


def test_a_step_that_fails_changes_nothing(old_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_file, "MIGRATIONS", (*MIGRATIONS, STEP + "INSERT INTO nowhere VALUES (1);"))
    with pytest.raises(HistoryError, match="nowhere"):
        History(old_file)
    assert version(old_file) == len(MIGRATIONS)
    with pytest.raises(sqlite3.OperationalError, match="colour"):
        colours(old_file)


def test_a_newer_file_is_left_alone(old_file: Path) -> None:
    with closing(sqlite3.connect(old_file)) as database:
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(HistoryError, match="newer llama-chat"):
        History(old_file)
    assert version(old_file) == len(MIGRATIONS) + 1
