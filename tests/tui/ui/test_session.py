from __future__ import annotations

from pathlib import Path

import pytest

from llama_chat.history import History
from llama_chat.ui.session import Session
from tests.support.ui.scripted_backend import ScriptedBackend


@pytest.fixture
def session() -> Session:
    return Session(History(Path(":memory:")), model="m", system="Be brief.")


async def ask(session: Session, text: str) -> None:
    turn = session.turn()
    async for _ in turn.stream(ScriptedBackend(), text):
        pass
    session.settle(turn)


def request(session: Session, draft: str = "") -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in session.request(draft)]


async def test_a_new_session_has_the_system_prompt_and_the_draft(session: Session) -> None:
    assert request(session) == [("system", "Be brief.")]
    assert request(session, "draft") == [("system", "Be brief."), ("user", "draft")]
    assert request(session, "  ") == [("system", "Be brief.")]
    assert session.prompts == []


async def test_turns_follow_each_other(session: Session) -> None:
    await ask(session, "one")
    await ask(session, "two")
    assert request(session)[1:] == [
        ("user", "one"),
        ("assistant", "You said: one"),
        ("user", "two"),
        ("assistant", "You said: two"),
    ]
    assert session.prompts == ["one", "two"]
    assert session.conversation
    assert session.history.messages(session.conversation.id) == session.messages


async def test_taking_back_makes_a_branch(session: Session) -> None:
    await ask(session, "one")
    await ask(session, "two")
    assert session.take_back() == "two"
    assert request(session)[1:] == [("user", "one"), ("assistant", "You said: one")]
    await ask(session, "three")
    assert session.prompts == ["one", "three"]
    assert session.conversation
    assert session.history.conversation(session.conversation.id).message_count == 6


async def test_taking_back_the_first(session: Session) -> None:
    assert session.take_back() is None
    await ask(session, "one")
    assert session.take_back() == "one"
    assert session.messages == []
    await ask(session, "again")
    assert len(session.history.conversations()) == 1


async def test_opening_goes_on_where_it_ended(session: Session) -> None:
    await ask(session, "one")
    saved = session.conversation
    assert saved
    session.clear()
    assert session.conversation is None
    session.open(session.history.conversation(saved.id))
    assert session.prompts == ["one"]


async def test_knows_when_its_conversation_was_deleted(session: Session) -> None:
    assert not session.is_gone()
    await ask(session, "one")
    assert not session.is_gone()
    assert session.conversation
    session.history.delete(session.conversation.id)
    assert session.is_gone()
    session.clear()
    assert not session.is_gone()
