"""The tree of errors, and its way over the wire."""

from __future__ import annotations

import re

import pytest

from llama_backend import errors
from llama_backend.errors import BackendError, Forbidden, NotFound, Unreachable, from_wire

LINE = re.compile(r"^    ([│ ]*)(?:[├└]─ )?([A-Z]\w+)(?: +(\d{3}|–) +\S.*)?$", re.MULTILINE)


def drawn() -> list[tuple[int, str]]:
    """Each class in the docstring's drawing, with how deep it stands."""
    found = LINE.findall(errors.__doc__ or "")
    return [(0 if name == "BackendError" else 1 + len(bars) // 3, name) for bars, name, _ in found]


def below(kind: type[BackendError]) -> list[type[BackendError]]:
    """The classes right below one, without those that tests define."""
    return [sub for sub in kind.__subclasses__() if sub.__module__ == errors.__name__]


def defined(kind: type[BackendError] = BackendError, depth: int = 0) -> list[tuple[int, str]]:
    return [(depth, kind.__name__), *(entry for sub in below(kind) for entry in defined(sub, depth + 1))]


def kinds(kind: type[BackendError] = BackendError) -> list[type[BackendError]]:
    """All classes below one."""
    return [found for sub in below(kind) for found in (sub, *kinds(sub))]


def test_the_tree_in_the_docstring_is_that_of_the_classes() -> None:
    assert drawn() == defined()


def test_the_status_codes_in_the_docstring_are_those_of_the_classes() -> None:
    said = {name: status for _, name, status in LINE.findall(errors.__doc__ or "") if status.isdigit()}
    here = {kind.__name__: str(kind.status) for kind in kinds() if not issubclass(kind, Unreachable)}
    assert said == here


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: str(kind.__name__))
def test_every_error_is_the_same_after_the_wire(kind: type[BackendError]) -> None:
    sent = kind("what went wrong", param="n", retry_after=2)
    back = from_wire(sent.to_wire(), kind.status)
    assert type(back) is kind
    assert (back.message, back.details) == ("what went wrong", {"param": "n", "retry_after": 2})


def test_the_code_decides_and_not_the_status() -> None:
    assert type(from_wire(NotFound("gone").to_wire(), 404)) is NotFound
    assert type(from_wire(Forbidden("not you").to_wire(), 403)) is Forbidden
