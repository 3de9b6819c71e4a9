"""Keeps the terminal in which the tests run from changing their results."""

from __future__ import annotations

import pytest

_VARIABLES = ("NO_COLOR", "TMUX", "SSH_CONNECTION", "DISPLAY", "WAYLAND_DISPLAY", "TEXTUAL_THEME", "TEXTUAL_ANIMATIONS")


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal with colours, and no clipboard but its own."""
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
