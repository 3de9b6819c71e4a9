"""The exit code of everything that can go wrong."""

from __future__ import annotations

import re

import pytest

from llama_backend import errors as backend
from llama_chat import errors
from llama_chat.errors import (
    ChatError,
    ConfigError,
    ConversationNotFound,
    HistoryError,
    KubeError,
    SchemaError,
    UsageError,
    exit_code,
)
from llama_convert import errors as convert

CODES: list[tuple[BaseException, int]] = [
    (ChatError("x"), 1),
    (HistoryError("x"), 1),
    (ConversationNotFound("x"), 1),
    (UsageError("x"), 2),
    (ConfigError("x"), 2),
    (KubeError("x"), 3),
    (SchemaError("x"), 6),
    (convert.ConvertError("x"), 1),
    (convert.UsageError("x"), 2),
    (convert.CorruptSource("x"), 4),
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


def test_the_drawn_tree_has_every_error_with_its_exit_code() -> None:
    drawn = {name: int(code) for name, code in re.findall(r"(\w+) +(\d) ", f"{errors.__doc__} ".replace("\n", " \n"))}
    assert drawn == {kind.__name__: exit_code(kind("x")) for kind in _family(ChatError)}


def _family(base: type[ChatError]) -> list[type[ChatError]]:
    return [base, *(found for below in base.__subclasses__() for found in _family(below))]
