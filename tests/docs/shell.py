"""Shell commands of documents: one command after the other, and the calls of `llama-chat` in them."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

_EXIT_CODE = re.compile(r"#.*(?:exit code|退出码)[^\d\n]*(\d+)")
_HERE_DOCUMENT = re.compile(r"<<-?\s*['\"]?(\w+)")
_COMMENT = re.compile(r"(^|\s)#\s.*$", re.MULTILINE)
_SUBSTITUTION = re.compile(r"\$\((llama-chat\b[^()]*)\)")
_OPERATORS = set("();<>|&\n")
_BEFORE_A_COMMAND = {"--", "time", "exec", "do", "then", "else", "if", "while", "!", "{", "sudo"}
_PROGRAM = re.compile(r"(.*/bin/)?llama-chat")


@dataclass(frozen=True)
class Command:
    """A whole command, which may have several lines."""

    text: str
    line: int
    """Of its first line in the block, counted from 0."""

    @property
    def exit_code(self) -> int:
        """What a comment behind it announces."""
        found = _EXIT_CODE.search(self.text)
        return int(found[1]) if found else 0


def commands(text: str) -> Iterator[Command]:
    """The commands of a block; comments alone are none."""
    lines: list[str] = []
    start = 0
    for number, line in enumerate(text.splitlines()):
        if not lines:
            start = number
            if not line.strip() or line.lstrip().startswith("#"):
                continue
        lines.append(line)
        if _is_whole(lines):
            yield Command("\n".join(lines), start)
            lines = []
    if lines:
        yield Command("\n".join(lines), start)


def _is_whole(lines: list[str]) -> bool:
    """Whether bash would run these lines instead of waiting for more."""
    text = "\n".join(lines)
    if lines[-1].endswith("\\"):
        return False
    if delimiter := _HERE_DOCUMENT.search(text):
        return any(line.strip() == delimiter[1] for line in lines[1:])
    return subprocess.run(["bash", "-n", "-c", text], capture_output=True).returncode == 0


def calls(text: str) -> Iterator[list[str]]:
    """The arguments of each call of `llama-chat` in a block."""
    plain = _COMMENT.sub("", text.replace("\\\n", " "))
    yield from _calls(plain)
    for inner in _SUBSTITUTION.findall(plain):
        yield from _calls(inner)


def _calls(text: str) -> Iterator[list[str]]:
    found: list[str] | None = None
    before = "\n"
    for word in words(text):
        is_operator = set(word) <= _OPERATORS
        if found is not None and is_operator:
            yield found
            found = None
        elif found is not None:
            found.append(word)
        elif _PROGRAM.fullmatch(word) and _begins_command(before):
            found = []
        before = word
    if found is not None:
        yield found


def _begins_command(before: str) -> bool:
    return set(before) <= _OPERATORS or before in _BEFORE_A_COMMAND or re.match(r"[A-Z_]+=", before) is not None


def words(text: str) -> list[str]:
    """The words of a text as a shell has them; operators and line ends are words too."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace = " \t"
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        return list(lexer)
    except ValueError:
        return text.split()
