from __future__ import annotations

from typing import Any

import pytest

from llama_backend import errors
from llama_backend.errors import BackendError, PromptTooLong, from_wire

KINDS = list(errors._BY_CODE.values())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_comes_back_over_the_wire(kind: type[BackendError]) -> None:
    error = kind("a reason", param="field", retry_after=2)
    found = from_wire(error.to_wire(), error.status)
    assert isinstance(found, kind)
    assert (found.message, found.status, found.code, found.details) == (
        "a reason",
        error.status,
        error.code,
        {"param": "field", "retry_after": 2},
    )
    assert found.retry_after == 2


def test_codes_name_one_class_each() -> None:
    own = [kind for kind in errors._family(BackendError)[1:] if kind.__module__ == errors.__name__]
    assert len({kind.code for kind in own}) == len(own)


def test_a_prompt_that_is_too_long_says_both_numbers() -> None:
    error = PromptTooLong.of(900, 512)
    assert (error.details["prompt_tokens"], error.details["context"]) == (900, 512)
    assert "900" in str(error)
    assert "512" in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.InvalidRequest),
        (401, errors.Unauthorized),
        (403, errors.Unauthorized),
        (404, errors.ModelNotFound),
        (413, errors.BodyTooLarge),
        (418, errors.InvalidRequest),
        (429, errors.QueueFull),
        (500, errors.InternalError),
        (502, errors.InternalError),
        (503, errors.Unavailable),
        (302, errors.InternalError),
    ],
)
def test_another_server_is_understood_by_its_status(status: int, kind: type[BackendError]) -> None:
    assert type(from_wire({"error": {"message": "no", "code": None, "type": "x"}}, status)) is kind


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "plain"}, "plain"),
        ({"error": {"message": None}}, "HTTP status 502"),
        ({"error": {}}, "HTTP status 502"),
        ({"detail": "other"}, "other"),
        ("<html>Bad Gateway</html>", "<html>Bad Gateway</html>"),
        ("", "HTTP status 502"),
        (None, "HTTP status 502"),
        ([], "HTTP status 502"),
        ({"error": {"message": "m", "self": 1, "cls": 2, "not a name": 3, "code": 12}}, "m"),
    ],
)
def test_odd_bodies_of_errors(body: Any, message: str) -> None:
    error = from_wire(body, 502)
    assert message in str(error)


def test_what_is_not_set_is_not_sent() -> None:
    assert BackendError("m", param=None).to_wire() == {
        "error": {"message": "m", "type": "server_error", "param": None, "code": "internal_error"}
    }
    assert BackendError("m", retry_after="soon").retry_after is None
