"""What can go wrong in the front end, and the exit code of everything that can go wrong.

    ChatError                 1
    ├─ UsageError             2  the command line, standard input or a setting is wrong
    │  └─ ConfigError         2  names the file or variable, the key and what is allowed
    ├─ KubeError              3  kubectl is missing, or the cluster says no
    ├─ SchemaError            6  the answer is not what the schema asks for
    └─ HistoryError           1  the conversations on disk cannot be read or written
       └─ ConversationNotFound

Errors of the backend come as they are (`llama_backend.errors`); `exit_code` knows both trees.
"""

from __future__ import annotations

from enum import IntEnum

from llama_backend.errors import (
    BackendError,
    BodyTooLarge,
    DeviceUnavailable,
    EngineDied,
    InvalidRequest,
    ModelNotFound,
    ModelUnreadable,
    PromptTooLong,
    Unavailable,
    Unreachable,
)


class ExitCode(IntEnum):
    """How a command ends."""

    ANSWER = 0
    FAILURE = 1
    USAGE = 2
    UNREACHABLE = 3
    MODEL = 4
    TOO_LONG = 5
    SCHEMA = 6
    INTERRUPTED = 130
    CLOSED_PIPE = 141
    """Whoever read standard output has gone; what a shell reports for SIGPIPE."""


class ChatError(Exception):
    """Base of all errors of the front end; `str(error)` is one line for a person."""


class UsageError(ChatError):
    pass


class ConfigError(UsageError):
    pass


class KubeError(ChatError):
    pass


class SchemaError(ChatError):
    pass


class HistoryError(ChatError):
    pass


class ConversationNotFound(HistoryError):
    pass


_CODES: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (UsageError, ExitCode.USAGE),
    (SchemaError, ExitCode.SCHEMA),
    (KubeError, ExitCode.UNREACHABLE),
    (PromptTooLong, ExitCode.TOO_LONG),
    (BodyTooLarge, ExitCode.TOO_LONG),
    (InvalidRequest, ExitCode.USAGE),
    (ModelNotFound, ExitCode.MODEL),
    (ModelUnreadable, ExitCode.MODEL),
    (EngineDied, ExitCode.FAILURE),
    (DeviceUnavailable, ExitCode.FAILURE),
    (Unavailable, ExitCode.UNREACHABLE),
    (Unreachable, ExitCode.UNREACHABLE),
    (BackendError, ExitCode.FAILURE),
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
)
"""The first entry that fits decides, so that subclasses stand before their base."""


def exit_code(error: BaseException) -> ExitCode:
    """The exit code for a command that ended with `error`."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILURE)
