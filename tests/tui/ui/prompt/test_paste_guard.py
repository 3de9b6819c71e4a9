from __future__ import annotations

from llama_chat.ui.prompt.paste_guard import PasteGuard


def typed(guard: PasteGuard, *times: float) -> list[bool]:
    return [guard.key(time) for time in times]


def test_typed_keys_are_no_burst() -> None:
    assert typed(PasteGuard(), 1.0, 1.05, 1.1) == [False, False, False]


def test_pasted_keys_are_a_burst() -> None:
    assert typed(PasteGuard(), 1.0, 1.0001, 1.0002, 1.5) == [False, True, True, False]


def test_a_line_end_makes_a_paste_of_the_burst_and_of_no_other() -> None:
    guard = PasteGuard()
    typed(guard, 1.0, 1.001)
    guard.line_end()
    typed(guard, 1.002)
    assert guard.is_paste
    typed(guard, 2.0)
    assert not guard.is_paste
