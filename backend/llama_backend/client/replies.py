"""Reads a server's responses within limits, so that a broken or hostile server costs neither memory nor time.

Compressed responses are refused: the client does not ask for any, and a few bytes could become gigabytes. Redirects are
not followed: they could send the API key to another server.
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
"""Most bytes of a response that is not a stream."""
MOST_LINE = 4 << 20
"""Most bytes of one line of a stream."""
MOST_ANSWER = 64 << 20
"""Most characters of an answer; the largest context holds fewer."""
_MOST_SHOWN = 500
"""Most characters that are shown of a response that is not JSON."""


async def body_of(answer: httpx2.Response, seconds: float) -> bytes:
    """The whole body; raises BackendError where it is too large, and TimeoutError after `seconds`."""
    _check_encoding(answer)
    parts, size = [], 0
    async with asyncio.timeout(seconds):
        async for part in answer.aiter_raw():
            size += len(part)
            if size > MOST_BODY:
                raise BackendError(f"the server's response has more than {MOST_BODY >> 20} MiB; it is not read")
            parts.append(part)
    return b"".join(parts)


async def lines_of(answer: httpx2.Response, seconds: float) -> AsyncGenerator[bytes, None]:
    """The lines of an event stream. (`aiter_lines` would also split texts at Unicode's other line separators.)

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
            raise BackendError(f"the server sends a line of more than {MOST_LINE >> 20} MiB; the rest is not read")
        if monotonic() - begun > seconds:
            raise ConnectionLost("the server sends a line too slowly")
    yield rest


async def refusal(answer: httpx2.Response, seconds: float) -> BackendError:
    """The error that a response with an unexpected status describes."""
    if answer.is_redirect:
        return BackendError("the server redirects to another URL, which gets no API key; give that URL instead")
    return from_wire(parsed(await body_of(answer, seconds)), answer.status_code)


def parsed(body: bytes) -> Any:
    """The body as JSON, or its first characters where it is not JSON."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return body[: 4 * _MOST_SHOWN].decode("utf-8", "replace")[:_MOST_SHOWN]


def number_of(text: bytes) -> int | None:
    """A whole number of at most 15 digits, or None for anything else."""
    digits = text.strip()
    return int(digits) if digits.isdigit() and len(digits) <= 15 else None


def _check_encoding(answer: httpx2.Response) -> None:
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise BackendError("the server's response is compressed, which was not asked for; it is not read")
