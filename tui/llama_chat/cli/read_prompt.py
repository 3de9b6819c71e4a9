"""The prompt of `ask`: standard input, then the words of the command line."""

from __future__ import annotations

from typing import BinaryIO

from llama_backend.errors import PromptTooLong
from llama_chat.errors import UsageError

MAX_BYTES = 8 << 20
"""More than any context holds: a token is rarely shorter than a byte, and the longest contexts have 10 million."""


def read_prompt(words: str, stdin: BinaryIO | None) -> str:
    """What is asked: standard input, a blank line and the words, so that the instruction comes last.

    Raises UsageError for an empty or binary prompt, and PromptTooLong for one of more than MAX_BYTES.
    """
    parts = [check_text(words, "the prompt"), read_text(stdin) if stdin else ""]
    prompt = "\n\n".join(part for part in reversed(parts) if part.strip())
    if not prompt:
        raise UsageError("no prompt; give one as an argument or on standard input")
    return prompt


def read_text(stdin: BinaryIO) -> str:
    """Standard input to its end, without the newlines there."""
    try:
        data = stdin.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"standard input cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise PromptTooLong(f"standard input holds more than {MAX_BYTES >> 20} MiB, more than any context holds")
    if b"\0" in data:
        raise UsageError("standard input is binary, not text")
    try:
        return data.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is binary, or text that is not UTF-8 (byte {error.start})") from error


def check_text(text: str, what: str) -> str:
    """Text of the command line; raises UsageError where its bytes are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} is not UTF-8") from error
    return text
