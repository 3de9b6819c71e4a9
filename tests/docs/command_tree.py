"""Whether a call of `llama-chat` names commands and options that there are."""

from __future__ import annotations

from collections.abc import Iterator

import click

from llama_chat.cli.group import LazyGroup
from llama_chat.cli.main import COMMANDS

GROUP = LazyGroup(COMMANDS)
_OWN_OPTIONS = {"--version", "--help", "-h"}


def complaint(arguments: list[str]) -> str | None:
    """What is wrong with a call, or None. Values are not looked at, and may be left out."""
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in _OWN_OPTIONS):
        arguments = ["chat", *arguments]
    try:
        _walk(GROUP, "llama-chat", arguments)
    except click.NoSuchOption as error:
        return error.format_message()
    except click.BadOptionUsage:
        return None
    except click.UsageError as error:
        return error.format_message()
    return None


def _walk(command: click.Command, name: str, arguments: list[str]) -> None:
    """Follows the arguments from group to command; raises UsageError."""
    context = click.Context(command, info_name=name)
    rest = command.make_parser(context).parse_args(list(arguments))[1]
    if isinstance(command, click.Group) and rest:
        found = command.get_command(context, rest[0])
        if found is None:
            raise click.UsageError(f"{name!r} has no command {rest[0]!r}")
        _walk(found, rest[0], rest[1:])


def all_commands(group: click.Group = GROUP) -> Iterator[click.Command]:
    """Every command, those of groups too."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield command
        if isinstance(command, click.Group):
            yield from all_commands(command)


def all_options() -> set[str]:
    """Every option of every command, with its hyphens."""
    options = [option for command in all_commands() for option in command.params if isinstance(option, click.Option)]
    return _OWN_OPTIONS | {name for option in options for name in (*option.opts, *option.secondary_opts)}


def variables() -> set[str]:
    """The environment variables of options that are no settings."""
    options = [option for command in all_commands() for option in command.params]
    return {name for option in options if isinstance(name := option.envvar, str)}
