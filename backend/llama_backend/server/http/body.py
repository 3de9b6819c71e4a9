"""Bodies of requests: read up to a limit, decoded and validated."""

from __future__ import annotations

import asyncio
import re
from typing import TypeVar

import msgspec
from starlette.requests import Request

from llama_backend.errors import BodyTooLarge, BodyTooSlow, InvalidRequest
from llama_backend.wire.api import SamplingParams

_MAX_BODY = 4 * 1024 * 1024
BODY_SECONDS = 60.0
"""How long a body may take to arrive: at the largest size that is 70 kB/s."""
_PATH = re.compile(r"`\$\.?([^`]*)`")
_MISSING = re.compile(r"missing required field `([^`]*)`")

Parsed = TypeVar("Parsed", bound=msgspec.Struct)


async def parse(request: Request, kind: type[Parsed]) -> Parsed:
    """The body as `kind`.

    Raises InvalidRequest, which names the wrong field, BodyTooLarge, BodyTooSlow and BodiesFull.
    """
    try:
        parsed = msgspec.json.decode(await _read(request), type=kind)
        if isinstance(parsed, SamplingParams):
            parsed.validate()
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error), param=_field(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error
    return parsed


def _field(message: str) -> str | None:
    """The field that msgspec's message is about, such as `messages[0].role`."""
    found = (_PATH.search(message), _MISSING.search(message))
    return ".".join(match[1] for match in found if match and match[1]) or None


async def _read(request: Request) -> bytearray:
    """The bytes of the body; raises as `parse`."""
    length = request.headers.get("content-length", "0")
    size = int(length) if length.isdigit() else 0
    body = bytearray()
    if size <= _MAX_BODY:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in request.stream():
                    request.state.body.grow(len(chunk))
                    body += chunk
                    if len(body) > _MAX_BODY:
                        break
        except TimeoutError:
            raise BodyTooSlow(f"the body did not arrive within {BODY_SECONDS:.0f} s; send it faster") from None
    if max(size, len(body)) > _MAX_BODY:
        raise BodyTooLarge(f"the body has more than {_MAX_BODY} bytes; send less")
    return body
