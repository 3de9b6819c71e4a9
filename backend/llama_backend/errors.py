"""All errors of the backend, as one tree with HTTP status codes.

    BackendError
    ├─ InvalidRequest         400  a field has a wrong value; `param` names the field
    │  ├─ PromptTooLong       400  the prompt has more tokens than the context holds
    │  ├─ BodyTooLarge        413  the body has more bytes than are allowed
    │  ├─ BodyTooSlow         408  the body did not arrive in time
    │  └─ HeadTooLarge        431  the request line and the headers are too large
    ├─ Unauthorized           401  a valid API key is needed
    ├─ Forbidden              403  a server without keys answers requests to localhost only
    │  └─ ForeignOrigin       403  the request comes from a web page whose origin is not allowed
    ├─ ModelNotFound          404  no model has this name
    ├─ NotFound               404  no such path, or an answer that is not kept
    ├─ MethodNotAllowed       405  the path does not have this method
    ├─ QueueFull              429  too many requests wait; carries `retry_after` in seconds
    ├─ RateLimited            429  more requests than the key may send; carries `retry_after`
    ├─ Unavailable            503  loading, restarting or draining; carries `retry_after`
    │  ├─ BodiesFull          503  the memory for the texts of all requests is full
    │  ├─ ModelUnreadable     503  llama.cpp cannot load the model's file
    │  ├─ DeviceUnavailable   503  the GPU that was asked for does not exist
    │  └─ EngineDied          503  the engine process ended while it worked on the request
    ├─ DeadlineExceeded       504  the time that the request or the server allows is over
    ├─ InternalError          500  a fault of the backend
    │  └─ RequestEndsEngine   500  two engine processes ended while they worked on the request
    └─ Unreachable             –   no backend answers (raised by the client only)
       ├─ ConnectionLost       –   a backend answered, and the connection broke or fell silent
       ├─ PodPending           –   none of a Service's pods takes connections yet
       └─ UntrustedSocket      –   the local socket may belong to another user

`code` is stable and is sent in responses; `from_wire` turns it back into the same class.
"""

from __future__ import annotations

from typing import Any, ClassVar

_LONGEST_TEXT = 1000
"""Most characters of a message that are sent."""
_LONGEST_FOREIGN_TEXT = 2000
"""Most characters that are taken from another server's message."""


class BackendError(Exception):
    """Base of all errors of the backend; `str(error)` is one line for a person."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "server_error"

    def __init__(self, message: str, /, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = {key: value for key, value in details.items() if value is not None}

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait before trying again, or None."""
        value = self.details.get("retry_after")
        return float(value) if isinstance(value, int | float) else None

    def to_wire(self) -> dict[str, Any]:
        """The error as OpenAI writes it: `{"error": {"message", "type", "param", "code", …}}`, on one line."""
        body = {"message": _short(self.message), "type": self.type, "param": None, "code": self.code}
        details = {key: _short(value) if isinstance(value, str) else value for key, value in self.details.items()}
        return {"error": body | details}


class InvalidRequest(BackendError):
    status, code, type = 400, "invalid_request", "invalid_request_error"


class PromptTooLong(InvalidRequest):
    code = "context_length_exceeded"

    @classmethod
    def of(cls, prompt_tokens: int, context: int) -> PromptTooLong:
        """The error for a prompt of `prompt_tokens` in a window of `context` tokens."""
        text = f"the prompt has {prompt_tokens} tokens and the context holds {context}, one of them for the answer"
        return cls(text, param="messages", prompt_tokens=prompt_tokens, context=context)

    @classmethod
    def at_least(cls, size: int, prompt_tokens: int, context: int) -> PromptTooLong:
        """The error for a text of `size` bytes, which is too long for its tokens to be counted."""
        text = f"the prompt is {size} bytes long, at least {prompt_tokens} tokens, and the context holds {context}"
        return cls(text, param="messages", prompt_tokens=prompt_tokens, context=context)


class BodyTooLarge(InvalidRequest):
    status, code = 413, "request_too_large"


class BodyTooSlow(InvalidRequest):
    status, code = 408, "request_timeout"


class HeadTooLarge(InvalidRequest):
    status, code = 431, "request_head_too_large"


class Unauthorized(BackendError):
    status, code, type = 401, "invalid_api_key", "authentication_error"


class Forbidden(BackendError):
    status, code, type = 403, "forbidden_host", "permission_error"


class ForeignOrigin(Forbidden):
    code = "forbidden_origin"


class ModelNotFound(BackendError):
    status, code, type = 404, "model_not_found", "invalid_request_error"


class NotFound(BackendError):
    status, code, type = 404, "not_found", "invalid_request_error"


class MethodNotAllowed(BackendError):
    status, code, type = 405, "method_not_allowed", "invalid_request_error"


class QueueFull(BackendError):
    status, code, type = 429, "queue_full", "rate_limit_error"


class RateLimited(BackendError):
    status, code, type = 429, "rate_limit_exceeded", "rate_limit_error"


class Unavailable(BackendError):
    status, code, type = 503, "unavailable", "unavailable_error"


class BodiesFull(Unavailable):
    code = "bodies_full"


class ModelUnreadable(Unavailable):
    code = "model_unreadable"


class DeviceUnavailable(Unavailable):
    code = "device_unavailable"


class EngineDied(Unavailable):
    code = "engine_died"


class DeadlineExceeded(BackendError):
    status, code, type = 504, "deadline_exceeded", "timeout_error"


class InternalError(BackendError):
    pass


class RequestEndsEngine(InternalError):
    code = "request_ends_engine"


class Unreachable(BackendError):
    status, code, type = 503, "unreachable", "connection_error"


class ConnectionLost(Unreachable):
    code = "connection_lost"


class PodPending(Unreachable):
    code = "pod_pending"


class UntrustedSocket(Unreachable):
    code = "untrusted_socket"


def _short(text: str) -> str:
    """A text as one line of limited length: a message may quote what a client sent."""
    line = " ".join(text.splitlines())
    return line if len(line) <= _LONGEST_TEXT else f"{line[:_LONGEST_TEXT]}…"


def _family(base: type[BackendError]) -> list[type[BackendError]]:
    return [base] + [found for sub in base.__subclasses__() for found in _family(sub)]


_BY_CODE = {kind.code: kind for kind in _family(BackendError)}


def from_wire(body: Any, status: int) -> BackendError:
    """The error that `body` describes: the parsed JSON of a response of this backend or of another server."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        error = {"message": str(error or body or f"HTTP status {status}")}
    kind = _BY_CODE.get(str(error.get("code")), _by_status(status))
    known = {"message", "type", "code"}
    details = {key: value for key, value in error.items() if key not in known and key.isidentifier()}
    message = str(error.get("message") or f"HTTP status {status}")
    return kind(message[:_LONGEST_FOREIGN_TEXT], **details)


def _by_status(status: int) -> type[BackendError]:
    table: dict[int, type[BackendError]] = {
        401: Unauthorized,
        403: Unauthorized,
        404: ModelNotFound,
        413: BodyTooLarge,
        429: QueueFull,
        503: Unavailable,
    }
    return table.get(status, InvalidRequest if 400 <= status < 500 else InternalError)
