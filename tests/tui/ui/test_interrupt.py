from __future__ import annotations

from llama_chat.ui.interrupt import AGAIN_SECONDS, KeyLadder, Rung


def step(ladder: KeyLadder, now: float, *, selection: bool = False, draft: bool = False, answer: bool = False) -> Rung:
    return ladder.step(has_selection=selection, has_draft=draft, is_answering=answer, now=now)


def test_each_rung_comes_before_the_next() -> None:
    ladder = KeyLadder()
    assert step(ladder, 0, selection=True, draft=True, answer=True) is Rung.COPY
    assert step(ladder, 0, draft=True, answer=True) is Rung.CLEAR
    assert step(ladder, 0, answer=True) is Rung.STOP
    assert step(ladder, 0) is Rung.ASK
    assert step(ladder, 1) is Rung.QUIT


def test_a_late_second_press_asks_again() -> None:
    ladder = KeyLadder()
    step(ladder, 0)
    assert step(ladder, AGAIN_SECONDS + 0.1) is Rung.ASK
    assert step(ladder, AGAIN_SECONDS + 0.2) is Rung.QUIT


def test_what_was_cleared_between_starts_over() -> None:
    ladder = KeyLadder()
    step(ladder, 0)
    assert step(ladder, 0.5, draft=True) is Rung.CLEAR
    assert step(ladder, 1.0) is Rung.ASK
