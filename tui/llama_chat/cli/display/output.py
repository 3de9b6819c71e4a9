"""What the commands write: answers to standard output, everything else to standard error."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from llama_chat.errors import ChatError
from llama_chat.plain_text import PlainText, cell, one_line, plain_text


def prepare_streams() -> None:
    """Opens what the caller has closed, so that no file of ours becomes standard output, and writes UTF-8 to pipes.

    A terminal keeps its own encoding, and shows `?` for what that lacks.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")


def abandon_stdout() -> None:
    """Sends what is still buffered nowhere; else the interpreter would complain about it as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(message: str) -> None:
    """One line about what went wrong."""
    note(one_line(f"llama-chat: {message}"))


def note(line: str) -> None:
    """A line on standard error, which is for persons wherever it leads."""
    put(plain_text(line) + "\n")


def put(text: str) -> None:
    """Text on standard error as it is; nobody is told where that is closed."""
    with suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def hint(line: str) -> None:
    """A note for a person; a script's standard error stays empty."""
    if sys.stderr.isatty():
        note(line)


def shown(text: str, stream: TextIO) -> str:
    """The text as it may go to `stream`: plain to a terminal, and to a file or a pipe with every byte as it came.

    A program that reads an answer is to get what the model wrote, be it a script with colours in it.
    """
    return plain_text(text) if stream.isatty() else text


def write(text: str) -> None:
    """One or more lines on standard output."""
    emit(shown(text, sys.stdout).rstrip("\n") + "\n", sys.stdout)


def emit(text: str, stream: TextIO) -> None:
    """Writes at once. Raises BrokenPipeError where nobody reads any more, ChatError where it cannot be written."""
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        abandon_stdout()
        if isinstance(error, BrokenPipeError):
            raise
        raise ChatError(f"standard output cannot be written: {error.strerror}") from error


def write_json(value: Any) -> None:
    """A value that msgspec can encode, as indented JSON."""
    import msgspec

    write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows with their columns aligned; whatever is in a cell, a row is a line."""
    rows = [tuple(map(cell, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


class AnswerWriter:
    """Writes an answer to a stream as it comes, so that it ends with exactly one newline."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._plain = PlainText() if stream.isatty() else None
        self._newlines = ""
        self._begun = False

    def write(self, text: str) -> None:
        """Newlines at the end are held back until more text comes."""
        whole = self._newlines + (self._plain.feed(text) if self._plain else text)
        body = whole.rstrip("\n")
        self._newlines = whole[len(body) :]
        if body:
            self._begun = True
            emit(body, self._stream)

    def end(self, *, complete: bool) -> None:
        """Ends the last line; an answer without text is an empty line, a failure without text is nothing."""
        if self._begun or complete:
            emit("\n", self._stream)
