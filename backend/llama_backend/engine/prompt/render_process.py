"""`python -m llama_backend.engine.prompt.render_process`: compiles a chat template and renders conversations with it.

A template is a program in a model's file, and Python can neither interrupt it nor limit its memory. So it runs in a
process of its own, which the system ends when it takes too much time; then the template has failed. The process's
standard input is a socket: a Source comes first, then conversations, and a Rendered is sent in reply to each.
"""

from __future__ import annotations

import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import BinaryIO

import msgspec

from llama_backend.engine.prompt.render_messages import (
    MEMORY,
    MOST_TEXT,
    SECONDS,
    Conversation,
    Fragment,
    Rendered,
    Source,
    read_payload,
)
from llama_backend.engine.prompt.template import LLAMA2, ChatTemplate
from llama_backend.errors import InvalidRequest
from llama_backend.host.parent import die_with_parent
from llama_backend.wire.ipc import framed

_MOST_REASON = 500
"""Most characters of an error; the rest is cut off."""


def main() -> int:
    die_with_parent()
    for limit, value in ((resource.RLIMIT_DATA, MEMORY), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        resource.setrlimit(limit, (value, value))
    with socket.socket(fileno=sys.stdin.fileno()) as sock, sock.makefile("rb") as file:
        return _serve(sock, file)


def _serve(sock: socket.socket, file: BinaryIO) -> int:
    """Answers until the engine has closed its end."""
    source = msgspec.msgpack.decode(read_payload(file), type=Source)
    made: list[ChatTemplate] = []

    def compile_it() -> list[Fragment]:
        made.append(ChatTemplate(LLAMA2 if source.text is None else source.text, source.bos, source.eos))
        return []

    _send(sock, _limited(compile_it, "is broken"))
    decode = msgspec.msgpack.Decoder(Conversation).decode
    while made and (payload := read_payload(file)):
        _send(sock, _limited(partial(made[0].render, decode(payload)), "refuses"))
    return 0


def _limited(work: Callable[[], list[Fragment]], verb: str) -> Rendered:
    """The result of `work`. The system ends this process when that takes more than SECONDS of processor time."""
    try:
        with _timer():
            fragments = work()
            size = sum(len(fragment.text) for fragment in fragments)
    except InvalidRequest as error:
        return Rendered(error=_short(error.message))
    except MemoryError:
        return Rendered(error=f"the model's chat template takes more than {MEMORY >> 20} MiB of memory")
    except Exception as error:  # noqa: BLE001 - a template may raise anything
        return Rendered(error=_short(f"the model's chat template {verb}: {error!r}"))
    if size > MOST_TEXT:
        return Rendered(error=f"the model's chat template writes {size} characters; the limit is {MOST_TEXT}")
    return Rendered(fragments=fragments)


def _short(text: str) -> str:
    """An error as one short line, since a template may write anything into it."""
    return " ".join(text[:_MOST_REASON].split())


@contextmanager
def _timer() -> Iterator[None]:
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _send(sock: socket.socket, rendered: Rendered) -> None:
    sock.sendall(framed(msgspec.msgpack.encode(rendered)))


if __name__ == "__main__":
    sys.exit(main())
