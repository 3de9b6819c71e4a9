"""The exit code of everything that can go wrong."""

from __future__ import annotations

import pytest

from llama_backend import errors as backend
from llama_chat.errors import ChatError, ConfigError, ConversationNotFound, HistoryError, UsageError, exit_code

CODES: list[tuple[BaseException, int]] = [
    (ChatError("x"), 1),
    (HistoryError("x"), 1),
    (ConversationNotFound("x"), 1),
    (UsageError("x"), 2),
    (ConfigError("x"), 2),
    (backend.BackendError("x"), 1),
    (backend.InvalidRequest("x"), 2),
    (backend.PromptTooLong("x"), 5),
    (backend.BodyTooLarge("x"), 5),
    (backend.Unauthorized("x"), 1),
    (backend.ModelNotFound("x"), 4),
    (backend.ModelUnreadable("x"), 4),
    (backend.DeviceUnavailable("x"), 1),
    (backend.EngineDied("x"), 1),
    (backend.QueueFull("x"), 1),
    (backend.Unavailable("x"), 3),
    (backend.Unreachable("x"), 3),
    (backend.InternalError("x"), 1),
    (KeyboardInterrupt(), 130),
    (RuntimeError(), 1),
]


@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda value: type(value).__name__)
def test_exit_codes(error: BaseException, code: int) -> None:
    assert exit_code(error) == code
