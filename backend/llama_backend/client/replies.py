"""What a server answers, taken in within bounds: one that is broken or hostile costs neither memory nor patience.

Nothing is decompressed, since we ask for nothing compressed and a few bytes could become gigabytes; and no redirect is
followed, which could lead the key to somebody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from time import monotonic
from typing import Any

import httpx2
import msgspec

from llama_backend.errors import BackendError, ConnectionLost, from_wire

MOST_BODY = 8 << 20
"""Bytes of an answer that is no stream."""
MOST_LINE = 4 << 20
"""Bytes of one event."""
MOST_ANSWER = 64 << 20
"""Characters of an answer, more than the largest context holds."""
_MOST_COMPLAINT = 500
"""Characters that are shown of an answer which is not JSON."""


async def body_of(answer: httpx2.Response, seconds: float) -> bytes:
    """The whole body; raises BackendError where it is too large, and TimeoutError after `seconds`."""
    _check_encoding(answer)
    parts, size = [], 0
    async with asyncio.timeout(seconds):
        async for part in answer.aiter_raw():
            size += len(part)
            if size > MOST_BODY:
                raise BackendError(f"the server's answer is larger than {MOST_BODY >> 20} MiB")
            parts.append(part)
    return b"".join(parts)


async def lines_of(answer: httpx2.Response, seconds: float) -> AsyncGenerator[bytes, None]:
    """The lines of an event stream; `aiter_lines` would also cut at what Unicode calls a line end within a text.

    Raises BackendError for a line that is too long, and ConnectionLost for one that takes more than `seconds`.
    """
    _check_encoding(answer)
    rest, begun = b"", monotonic()
    async for part in answer.aiter_raw():
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line
        if lines:
            begun = monotonic()
        if len(rest) > MOST_LINE:
            raise BackendError(f"the server sends a line of more than {MOST_LINE >> 20} MiB")
        if monotonic() - begun > seconds:
            raise ConnectionLost("the server sends a line too slowly")
    yield rest


async def refusal(answer: httpx2.Response, seconds: float) -> BackendError:
    """The error that an answer with another status than was hoped for stands for."""
    if answer.is_redirect:
        return BackendError("the server sends us elsewhere, where the key is not taken: give the URL that it leads to")
    return from_wire(parsed(await body_of(answer, seconds)), answer.status_code)


def parsed(body: bytes) -> Any:
    """JSON, or the beginning of what is none."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return body[: 4 * _MOST_COMPLAINT].decode("utf-8", "replace")[:_MOST_COMPLAINT]


def number_of(text: bytes) -> int | None:
    """A whole number of at most 15 digits; None is something else."""
    digits = text.strip()
    return int(digits) if digits.isdigit() and len(digits) <= 15 else None


def _check_encoding(answer: httpx2.Response) -> None:
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise BackendError("the server's answer is compressed, which it was not asked for")
