"""Conversations on disk: the tree, the list, the facts, and what can be wrong with the file."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from llama_backend.wire.api import Timings, Usage
from llama_chat.errors import ConversationNotFound, HistoryError
from llama_chat.history import Conversation, History


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "history.db"


@pytest.fixture
def history(file: Path) -> Iterator[History]:
    opened = History(file)
    yield opened
    opened.close()


def grow(history: History, conversation: Conversation, *texts: str) -> list[int]:
    """Adds messages one below the other; their ids."""
    ids: list[int] = []
    for number, text in enumerate(texts):
        role = "assistant" if number % 2 else "user"
        ids.append(history.add(conversation.id, role, text, parent_id=ids[-1] if ids else None).id)
    return ids


def texts(history: History, conversation: Conversation, tip: int | None = None) -> list[str]:
    return [message.text for message in history.messages(conversation.id, tip)]


def test_a_new_conversation_is_empty(history: History) -> None:
    created = history.create(model="llama2:7b-chat", system="Be brief.")
    found = history.conversation(created.id)
    assert found == created
    assert (found.model, found.system, found.title, found.tip, found.message_count) == (
        "llama2:7b-chat",
        "Be brief.",
        "",
        None,
        0,
    )
    assert history.messages(created.id) == []


def test_messages_are_read_from_the_first_to_the_tip(history: History) -> None:
    conversation = history.create()
    ids = grow(history, conversation, "question", "answer", "more")
    messages = history.messages(conversation.id)
    assert [message.id for message in messages] == ids
    assert [message.parent_id for message in messages] == [None, *ids[:-1]]
    assert [message.role for message in messages] == ["user", "assistant", "user"]
    assert history.conversation(conversation.id).tip == ids[-1]


def test_a_branch_leaves_the_other_as_it_was(history: History) -> None:
    conversation = history.create()
    first, answer, *_ = grow(history, conversation, "question", "answer", "left")
    right = history.add(conversation.id, "user", "right", parent_id=answer)
    assert texts(history, conversation) == ["question", "answer", "right"]
    assert texts(history, conversation, answer) == ["question", "answer"]
    assert texts(history, conversation, first) == ["question"]
    assert history.conversation(conversation.id).tip == right.id
    assert history.conversation(conversation.id).message_count == 4


def test_the_tip_of_another_conversation_shows_nothing(history: History) -> None:
    one, other = history.create(), history.create()
    ids = grow(history, one, "secret")
    assert history.messages(other.id, ids[0]) == []


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("What is a GGUF?", "What is a GGUF?"),
        ("\n\n  spaced \t out \nsecond line", "spaced out"),
        ("x" * 100, "x" * 59 + "…"),
    ],
)
def test_the_first_question_makes_the_title(history: History, text: str, title: str) -> None:
    conversation = history.create()
    grow(history, conversation, text, "answer", "another question")
    assert history.conversation(conversation.id).title == title


def test_a_given_title_stays(history: History) -> None:
    conversation = history.create(title="mine\nand more")
    grow(history, conversation, "question")
    assert history.conversation(conversation.id).title == "mine"


def test_facts_of_an_answer_are_kept(history: History) -> None:
    conversation = history.create()
    _, answer = grow(history, conversation, "question", "")
    usage = Usage(5, 3, 8, {"cached_tokens": 4})
    history.update(answer, "Yes.", finish_reason="stop", usage=usage, timings=Timings(predicted_n=3), seed=7, model="m")
    stored = history.messages(conversation.id)[-1]
    assert (stored.text, stored.finish_reason, stored.error, stored.model, stored.seed) == (
        "Yes.",
        "stop",
        None,
        "m",
        7,
    )
    assert (stored.prompt_tokens, stored.completion_tokens, stored.cached_tokens) == (5, 3, 4)
    assert stored.timings is not None
    assert '"predicted_n":3' in stored.timings


def test_an_update_leaves_what_is_not_given(history: History) -> None:
    conversation = history.create()
    _, answer = grow(history, conversation, "question", "")
    history.update(answer, "Y", model="m", seed=0)
    history.update(answer, "Ye")
    stored = history.messages(conversation.id)[-1]
    assert (stored.text, stored.model, stored.seed, stored.finish_reason) == ("Ye", "m", 0, None)


def test_the_list_has_the_newest_first(history: History) -> None:
    old, new = history.create(title="old"), history.create(title="new")
    assert [found.title for found in history.conversations()] == ["new", "old"]
    grow(history, old, "again")
    assert [found.title for found in history.conversations()] == ["old", "new"]
    assert [found.id for found in history.conversations(limit=1)] == [old.id]
    assert history.latest() == history.conversation(old.id)
    assert len(history.conversations(limit=-1)) == 2
    assert new.id != old.id


def test_nothing_is_the_latest_of_an_empty_history(history: History) -> None:
    assert history.latest() is None
    assert history.conversations() == []


def test_an_id_may_be_shortened(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = iter(["abc000000000", "abd000000000"])
    monkeypatch.setattr("llama_chat.history.os.urandom", lambda _: bytes.fromhex(next(ids)))
    first, _ = history.create(), history.create()
    assert history.conversation("ABC").id == first.id
    for ref, why in {"ab": "several", "ff": "'ff'", "": "''", "%": "'%'", "abc0000000000": "no conversation"}.items():
        with pytest.raises(ConversationNotFound, match=why):
            history.conversation(ref)


def test_a_deleted_conversation_is_gone_with_its_text(history: History, file: Path) -> None:
    keep, gone = history.create(), history.create()
    grow(history, keep, "kept")
    grow(history, gone, "a secret of mine", "hush")
    history.delete(gone.id)
    assert texts(history, keep) == ["kept"]
    with pytest.raises(ConversationNotFound):
        history.conversation(gone.id)
    history.close()
    assert b"a secret of mine" not in file.read_bytes()


def test_a_long_conversation_is_read_and_deleted_whole(history: History) -> None:
    conversation = history.create()
    grow(history, conversation, *(str(number) for number in range(3000)))
    assert texts(history, conversation) == [str(number) for number in range(3000)]
    history.delete(conversation.id)
    assert history.conversations() == []


def test_a_message_needs_its_conversation(history: History) -> None:
    with pytest.raises(HistoryError, match="FOREIGN KEY"):
        history.add("nowhere", "user", "text", parent_id=None)
    assert history.conversations() == []


def test_any_text_comes_back(history: History) -> None:
    conversation = history.create()
    strange = "é 🦙 \x00 \x1b[31m\r\n'; DROP TABLE messages; --"
    grow(history, conversation, strange)
    assert texts(history, conversation) == [strange]


def test_the_file_is_for_its_owner_alone(history: History, file: Path) -> None:
    grow(history, history.create(), "text")
    for path in file.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_it_is_found_again(history: History, file: Path) -> None:
    conversation = history.create()
    grow(history, conversation, "kept")
    history.close()
    again = History(file)
    assert texts(again, conversation) == ["kept"]
    again.close()


def test_a_history_in_memory_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    history = History(Path(":memory:"))
    grow(history, history.create(), "text")
    history.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("my shopping list, which must not be lost" * 20)
    with pytest.raises(HistoryError, match=r"history\.db .*not a database"):
        History(file)
    assert file.read_text().startswith("my shopping list")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(HistoryError, match="data"):
        History(tmp_path / "data" / "history.db")


def test_a_full_disk_is_reported(history: History, file: Path) -> None:
    conversation = history.create()
    pages = history._connection.execute("PRAGMA page_count").fetchone()[0]
    history._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(HistoryError, match="full"):
        grow(history, conversation, "x" * 100_000)
    assert texts(history, conversation) == []
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
