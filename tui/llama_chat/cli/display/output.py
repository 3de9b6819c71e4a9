"""What the commands write.

Standard output gets the result of a command and nothing else: `print_result`, `print_json` and `AnswerWriter`.
Standard error gets what is for a person: `print_error`, `print_note`, and `print_hint` where a person is looking.
Whatever goes to a terminal is made safe for it first, see `plain_text`.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from llama_chat.errors import ChatError
from llama_chat.plain_text import PlainText, one_line, plain_text, table_cell


def prepare_streams() -> None:
    """Opens streams that the caller has closed, so that no file of ours takes their place; pipes get UTF-8.

    A terminal keeps its own encoding, and shows `?` for characters that the encoding does not have.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")


def print_error(message: str) -> None:
    """Writes one line on standard error about what went wrong."""
    print_note(one_line(f"llama-chat: {message}"))


def print_note(text: str) -> None:
    """Writes a line on standard error, whether a person sees it or a file takes it."""
    write_stderr(plain_text(text) + "\n")


def print_hint(text: str) -> None:
    """Writes a line on standard error where that is a terminal; a script's standard error stays empty."""
    if sys.stderr.isatty():
        print_note(text)


def write_stderr(text: str) -> None:
    """Writes text on standard error as it is, control sequences too; nothing happens where that is closed."""
    with suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def print_result(text: str) -> None:
    """Writes one or more lines on standard output."""
    write_now(safe_for(sys.stdout, text).rstrip("\n") + "\n", sys.stdout)


def print_json(value: Any) -> None:
    """Writes a value that msgspec can encode on standard output, as indented JSON."""
    import msgspec

    print_result(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def write_now(text: str, stream: TextIO) -> None:
    """Writes text and flushes the stream.

    Raises BrokenPipeError where the reader has gone, and ChatError where the text cannot be written.
    """
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        _discard_stdout()
        if isinstance(error, BrokenPipeError):
            raise
        raise ChatError(f"standard output cannot be written: {error.strerror}") from error


def safe_for(stream: TextIO, text: str) -> str:
    """The text as it can be written to `stream`: made safe for a terminal, and unchanged for a file or a pipe.

    A program that reads an answer should get what the model wrote, even a script with colours in it.
    """
    return plain_text(text) if stream.isatty() else text


def format_table(rows: list[tuple[str, ...]]) -> str:
    """Rows with their columns aligned; a row is one line whatever its cells hold."""
    rows = [tuple(map(table_cell, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _discard_stdout() -> None:
    """Discards what is still buffered; otherwise the interpreter would report an error for it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class AnswerWriter:
    """Writes an answer to a stream as it comes, so that it ends with exactly one newline."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._plain = PlainText() if stream.isatty() else None
        self._newlines = ""
        self._begun = False

    def write(self, text: str) -> None:
        """Writes the next piece; newlines at its end are held back until more text comes."""
        whole = self._newlines + (self._plain.feed(text) if self._plain else text)
        body = whole.rstrip("\n")
        self._newlines = whole[len(body) :]
        if body:
            self._begun = True
            write_now(body, self._stream)

    def end(self, *, complete: bool) -> None:
        """Ends the last line; an answer without text is an empty line, a failure without text is nothing."""
        if self._begun or complete:
            write_now("\n", self._stream)
