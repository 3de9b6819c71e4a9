from __future__ import annotations

from pathlib import Path

import pytest

from llama_chat.history import History
from llama_chat.ui.shown_conversation import ShownConversation
from tests.support.ui.scripted_backend import ScriptedBackend


@pytest.fixture
def conversation() -> ShownConversation:
    return ShownConversation(History(Path(":memory:")), model="m", system="Be brief.")


async def ask(conversation: ShownConversation, text: str) -> None:
    turn = conversation.next_turn()
    async for _ in turn.stream(ScriptedBackend(), text):
        pass
    conversation.add(turn)


def request(conversation: ShownConversation, draft: str = "") -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in conversation.request(draft)]


async def test_a_new_conversation_has_the_system_prompt_and_the_draft(conversation: ShownConversation) -> None:
    assert request(conversation) == [("system", "Be brief.")]
    assert request(conversation, "draft") == [("system", "Be brief."), ("user", "draft")]
    assert request(conversation, "  ") == [("system", "Be brief.")]
    assert conversation.prompts == []


async def test_turns_follow_each_other(conversation: ShownConversation) -> None:
    await ask(conversation, "one")
    await ask(conversation, "two")
    assert request(conversation)[1:] == [
        ("user", "one"),
        ("assistant", "You said: one"),
        ("user", "two"),
        ("assistant", "You said: two"),
    ]
    assert conversation.prompts == ["one", "two"]
    assert conversation.saved
    assert conversation.history.messages(conversation.saved.id) == conversation.messages


async def test_taking_back_makes_a_branch(conversation: ShownConversation) -> None:
    await ask(conversation, "one")
    await ask(conversation, "two")
    assert conversation.take_back() == "two"
    assert request(conversation)[1:] == [("user", "one"), ("assistant", "You said: one")]
    await ask(conversation, "three")
    assert conversation.prompts == ["one", "three"]
    assert conversation.saved
    assert conversation.history.conversation(conversation.saved.id).message_count == 6


async def test_taking_back_the_first(conversation: ShownConversation) -> None:
    assert conversation.take_back() is None
    await ask(conversation, "one")
    assert conversation.take_back() == "one"
    assert conversation.messages == []
    await ask(conversation, "again")
    assert len(conversation.history.conversations()) == 1


async def test_opening_goes_on_where_it_ended(conversation: ShownConversation) -> None:
    await ask(conversation, "one")
    saved = conversation.saved
    assert saved
    conversation.start_new()
    assert conversation.saved is None
    conversation.show(conversation.history.conversation(saved.id))
    assert conversation.prompts == ["one"]


async def test_knows_when_the_conversation_was_deleted(conversation: ShownConversation) -> None:
    assert not conversation.is_deleted()
    await ask(conversation, "one")
    assert not conversation.is_deleted()
    assert conversation.saved
    conversation.history.delete(conversation.saved.id)
    assert conversation.is_deleted()
    conversation.start_new()
    assert not conversation.is_deleted()
