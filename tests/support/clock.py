"""A clock that tests move."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from types import ModuleType

import pytest


def movable_clock(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> Callable[[float], None]:
    """Replaces `monotonic` in some modules; the returned function moves it on by some seconds."""
    passed = 0.0

    def go_on(seconds: float) -> None:
        nonlocal passed
        passed += seconds

    for module in modules:
        monkeypatch.setattr(module, "monotonic", lambda: monotonic() + passed)
    return go_on
