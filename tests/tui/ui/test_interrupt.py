from __future__ import annotations

from llama_chat.ui.interrupt import AGAIN_SECONDS, InterruptAction, InterruptKey


def press(
    key: InterruptKey, now: float, *, selection: bool = False, draft: bool = False, answer: bool = False
) -> InterruptAction:
    return key.press(has_selection=selection, has_draft=draft, is_answering=answer, now=now)


def test_each_action_comes_before_the_next() -> None:
    key = InterruptKey()
    assert press(key, 0, selection=True, draft=True, answer=True) is InterruptAction.COPY
    assert press(key, 0, draft=True, answer=True) is InterruptAction.CLEAR
    assert press(key, 0, answer=True) is InterruptAction.STOP
    assert press(key, 0) is InterruptAction.CONFIRM
    assert press(key, 1) is InterruptAction.QUIT


def test_a_late_second_press_asks_again() -> None:
    key = InterruptKey()
    press(key, 0)
    assert press(key, AGAIN_SECONDS + 0.1) is InterruptAction.CONFIRM
    assert press(key, AGAIN_SECONDS + 0.2) is InterruptAction.QUIT


def test_what_was_cleared_between_starts_over() -> None:
    key = InterruptKey()
    press(key, 0)
    assert press(key, 0.5, draft=True) is InterruptAction.CLEAR
    assert press(key, 1.0) is InterruptAction.CONFIRM
