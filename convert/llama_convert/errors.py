"""What can go wrong on the way from weights to a model, as one small tree.

ConvertError                 1  `exit_code`, as the command line uses it
├─ UsageError                2  an option makes no sense; `str(error)` names it
├─ SourceError               4  the source is missing, broken, or not a Llama
│  ├─ SourceNotFound         4
│  ├─ AccessDenied           4  gated or private: a token is missing, or has no access
│  ├─ CorruptSource          4  cut short, a wrong hash, NaN in a tensor
│  └─ UnsupportedModel       4
├─ DownloadFailed            1  the network, or a server's answer
├─ DiskFull                  1
├─ OutputExists              1
├─ WorkerFailed              1  llama.cpp refused, or its process died
└─ CheckFailed               1  the written model does not load or does not compute
"""

from __future__ import annotations

from typing import ClassVar

_LONGEST = 1000
"""Characters of a message, which may contain untrusted text."""


class ConvertError(Exception):
    """Base of all errors of this package; `str(error)` is one line of printable characters for the user."""

    exit_code: ClassVar[int] = 1

    def __init__(self, text: str) -> None:
        super().__init__(_line(text))


def _line(text: str) -> str:
    """The text in one line, with what is not printable escaped; of a very long text the beginning and the end."""
    words = " ".join(_shortened(text).split())
    return _shortened("".join(char if char.isprintable() else ascii(char)[1:-1] for char in words))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"


class UsageError(ConvertError):
    exit_code = 2


class SourceError(ConvertError):
    exit_code = 4


class SourceNotFound(SourceError):
    pass


class AccessDenied(SourceError):
    pass


class CorruptSource(SourceError):
    pass


class UnsupportedModel(SourceError):
    pass


class DownloadFailed(ConvertError):
    pass


class DiskFull(ConvertError):
    pass


class OutputExists(ConvertError):
    pass


class WorkerFailed(ConvertError):
    pass


class CheckFailed(ConvertError):
    pass


def only_adapter(source: object) -> UnsupportedModel:
    """The error for a folder or a repository with an adapter and without the model that it belongs to."""
    return UnsupportedModel(f"{source}: holds only an adapter; merge it into its base model first")
