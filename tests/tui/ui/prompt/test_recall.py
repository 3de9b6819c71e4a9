from __future__ import annotations

from llama_chat.ui.prompt.recall import PromptRecall


def recall(*prompts: str) -> PromptRecall:
    found = PromptRecall()
    for prompt in prompts:
        found.add(prompt)
    return found


def test_walks_back_and_forth_and_ends_at_the_draft() -> None:
    found = recall("one", "two")
    assert found.older("draft") == "two"
    assert found.older("two") == "one"
    assert found.older("one") is None
    assert found.newer("one") == "two"
    assert found.newer("two") == "draft"
    assert found.newer("draft") is None


def test_a_changed_prompt_stays_changed_for_the_walk() -> None:
    found = recall("one", "two")
    found.older("")
    assert found.older("two, changed") == "one"
    assert found.newer("one") == "two, changed"


def test_blank_and_repeated_prompts_are_not_kept() -> None:
    found = recall("one", "one", "  ")
    assert found.older("") == "one"
    assert found.older("one") is None


def test_nothing_to_recall() -> None:
    assert recall().older("draft") is None
    assert recall().newer("draft") is None


def test_another_conversation_has_other_prompts() -> None:
    found = recall("one")
    found.replace(["a", "b"])
    assert found.older("") == "b"
