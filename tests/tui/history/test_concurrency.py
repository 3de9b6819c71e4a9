"""Several threads and processes on one history."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from llama_chat.history import History

WRITER = """
import sys
from pathlib import Path
from llama_chat.history import History

history = History(Path(sys.argv[1]))
conversation = history.create(title=sys.argv[2])
parent = None
for number in range(100):
    parent = history.add(conversation.id, "user", f"{sys.argv[2]} {number}", parent_id=parent).id
    history.update(parent, f"{sys.argv[2]} {number}!")
"""


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    """They also make the file at the same moment."""
    file = tmp_path / "history.db"
    names = ["one", "two", "three", "four"]
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(file), name]) for name in names]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
    history = History(file)
    assert sorted(conversation.title for conversation in history.conversations()) == sorted(names)
    for conversation in history.conversations():
        expected = [f"{conversation.title} {number}!" for number in range(100)]
        assert [message.text for message in history.messages(conversation.id)] == expected
    history.close()


def test_threads_share_one_history(tmp_path: Path) -> None:
    history = History(tmp_path / "history.db")

    def write(name: str) -> list[str]:
        conversation = history.create(title=name)
        parent: int | None = None
        for number in range(50):
            parent = history.add(conversation.id, "user", f"{name} {number}", parent_id=parent).id
        return [message.text for message in history.messages(conversation.id)]

    with ThreadPoolExecutor(4) as pool:
        for name, found in zip("abcd", pool.map(write, "abcd"), strict=True):
            assert found == [f"{name} {number}" for number in range(50)]
    history.close()


def test_one_process_reads_while_another_writes(tmp_path: Path) -> None:
    reader = History(tmp_path / "history.db")
    conversation = reader.create()
    with closing(sqlite3.connect(tmp_path / "history.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE conversations SET title = 'changed'")
        assert reader.conversations() == [conversation]
        writer.execute("COMMIT")
    assert reader.conversations()[0].title == "changed"
    reader.close()
