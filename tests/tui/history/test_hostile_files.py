"""Something else where the history should be: it is named, left as it is, and never waited for."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from llama_chat.errors import HistoryError
from llama_chat.history import Conversation, History
from tests.tui.cli.conftest import run

Spoil = Callable[[Path], object]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A history with a conversation of two messages."""
    path = tmp_path / "data" / "history.db"
    with closing(History(path)) as history:
        talk = history.create(title="kept")
        question = history.add(talk.id, "user", "a question", parent_id=None)
        history.add(talk.id, "assistant", "an answer", parent_id=question.id)
    return path


def changed(*statements: str) -> Spoil:
    """Changes the file as another program could."""

    def change(path: Path) -> None:
        with closing(sqlite3.connect(path)) as database:
            for statement in statements:
                database.execute(statement)
            database.commit()

    return change


def foreign(path: Path) -> None:
    path.unlink()
    changed("CREATE TABLE books (title TEXT)", "INSERT INTO books VALUES ('a book')")(path)


def replaced(make: Spoil) -> Spoil:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


def resized(share: float) -> Spoil:
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


def use(path: Path) -> Conversation:
    """What commands do with a history."""
    with closing(History(path)) as history:
        found = history.conversations()
        for conversation in found:
            history.messages(conversation.id, conversation.tip)
        return found[0]


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


TRIGGER = "CREATE TRIGGER messages_ai AFTER INSERT ON messages BEGIN DELETE FROM messages; END"
VIEW = "CREATE VIEW conversations AS SELECT 1 AS id, 2 AS title"
BROKEN: dict[str, tuple[Spoil, str]] = {
    "no database": (lambda path: path.write_bytes(b"my shopping list" * 1000), r"not a database; move it elsewhere"),
    "cut off": (resized(0.5), r"malformed; move it elsewhere"),
    "a header alone": (lambda path: os.truncate(path, 100), r"cannot be used: .*; move it elsewhere"),
    "a pipe": (replaced(lambda path: os.mkfifo(path)), r"is not a file, so it cannot be the history"),
    "a folder": (replaced(lambda path: path.mkdir()), r"is not a file"),
    "a link to a device": (replaced(lambda path: path.symlink_to("/dev/zero")), r"is not a file"),
    "a link to itself": (replaced(lambda path: path.symlink_to(path)), r"Too many levels of symbolic links"),
    "a pipe beside it": (lambda path: os.mkfifo(f"{path}-wal"), r"-wal is not a file"),
    "another program's": (foreign, r"another program's database, not our history; move it elsewhere"),
    "another program's with our version": (
        replaced(changed("CREATE TABLE books (title TEXT)", "PRAGMA user_version = 1")),
        r"another program's database",
    ),
    "a newer version": (changed("PRAGMA user_version = 99"), r"newer llama-chat \(format 99\)"),
    "a version below all": (changed("PRAGMA user_version = -1"), r"another program's database"),
    "our tables without a version": (changed("PRAGMA user_version = 0"), r"another program's database"),
    "a trigger": (changed(TRIGGER), r"another program's database"),
    "a view in place of a table": (changed("DROP TABLE conversations", VIEW), r"another program's database"),
    "a table without a column": (changed("ALTER TABLE messages DROP COLUMN seed"), r"another program's database"),
    "a number for a text": (changed("UPDATE conversations SET updated = 'soon'"), r"Expected `float`, got `str`"),
    "bytes for a text": (changed("UPDATE messages SET text = x'00ff'"), r"Expected `str`, got `bytes`"),
    "no UTF-8": (changed("UPDATE messages SET text = CAST(x'ff' AS TEXT)"), r"UTF-8"),
    "messages in a circle": (
        changed("UPDATE messages SET parent_id = id"),
        r"message \d follows one that is missing",
    ),
    "messages in a large circle": (
        changed("UPDATE messages SET parent_id = 3 - id"),
        r"message \d follows one that is",
    ),
    "a huge text": (changed("UPDATE messages SET text = CAST(zeroblob(70000000) AS TEXT)"), r"too big"),
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.timeout(30)
def test_it_is_named_and_left_as_it_is(file: Path, how: str) -> None:
    spoil, message = BROKEN[how]
    spoil(file)
    before = content(file)
    with pytest.raises(HistoryError, match=message) as caught:
        use(file)
    assert str(file) in str(caught.value)
    assert content(file) == before


@pytest.mark.parametrize("how", ["no database", "a pipe", "another program's", "a trigger", "messages in a circle"])
@pytest.mark.parametrize(
    "arguments", [["history", "show"], ["ask", "-c", "--url", "http://127.0.0.1:9", "hi"]], ids=" ".join
)
def test_a_command_ends_with_one_line(
    file: Path, how: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    BROKEN[how][0](file)
    monkeypatch.setenv("LLAMA_CHAT_DATA_DIR", str(file.parent))
    outcome = run(*arguments, timeout=30)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, b"", 1)
    assert str(file) in outcome.err


def test_a_link_to_a_file_of_ours_is_followed(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")
    assert use(file).title == "kept"


def test_an_empty_file_becomes_a_history(tmp_path: Path) -> None:
    (tmp_path / "history.db").touch(0o666)
    with closing(History(tmp_path / "history.db")) as history:
        assert history.conversations() == []
    assert stat.S_IMODE((tmp_path / "history.db").stat().st_mode) == 0o600


def test_numbers_that_no_column_holds_are_an_error_of_the_history(file: Path) -> None:
    with closing(History(file)) as history:
        with pytest.raises(HistoryError, match="too large"):
            history.update(2, "an answer", seed=1 << 70)
        with pytest.raises(HistoryError, match="surrogates"):
            history.create(title="half \ud83d")
        assert use(file).title == "kept"
