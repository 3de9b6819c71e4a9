"""The question before something is deleted."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from llama_chat.cli.display import output
from llama_chat.cli.options import Decorator
from llama_chat.errors import ExitCode, UsageError

yes_flag: Decorator[Any] = click.option("yes", "-y", "--yes", is_flag=True, help="Do not ask.")


def confirm_deletion(lines: Sequence[str]) -> None:
    """Shows what would be deleted, a line each, and asks; the answer "no" ends the command.

    Raises UsageError where standard input is not a terminal, so that nobody can be asked.
    """
    if not sys.stdin.isatty():
        raise UsageError("standard input is not a terminal, so nobody can confirm this; use --yes")
    for line in lines:
        output.print_note(line)
    if not click.confirm("Delete this for good?", err=True):
        raise click.exceptions.Exit(ExitCode.FAILURE)
