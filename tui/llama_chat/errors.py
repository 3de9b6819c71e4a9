"""What can go wrong in the front end, and the exit code of every error of this program.

    ChatError                    1
    ├─ UsageError                2  the command line, standard input or a setting is wrong
    │  └─ ConfigError            2  names the file or variable, the key and what is allowed
    ├─ KubeError                 3  kubectl is missing, or the cluster refuses
    ├─ SchemaError               6  the answer does not satisfy the schema
    └─ HistoryError              1  the conversations on disk cannot be read or written
       └─ ConversationNotFound   1  no conversation has the id, or several have

Errors of the backend (`llama_backend.errors`) and of conversions (`llama_convert.errors`) are raised as they are;
`exit_code` knows all three trees.
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
from llama_convert.errors import ConvertError


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
    """The reader of standard output has gone; a shell reports the same for SIGPIPE."""


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
"""The first entry that fits decides, so subclasses come before their base."""


def exit_code(error: BaseException) -> ExitCode:
    """The exit code for a command that ended with `error`."""
    if isinstance(error, ConvertError):
        return ExitCode(error.exit_code)
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILURE)
