"""The entry point: lists the commands, and turns whatever goes wrong into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, NoReturn

import click

from llama_backend.errors import BackendError
from llama_chat.cli import output
from llama_chat.errors import ChatError, ExitCode, exit_code

COMMANDS = {
    "ask": "Answer one prompt on standard output.",
    "chat": "Chat in the terminal; the default command.",
    "config": "Show the settings in force and where each comes from.",
    "history": "List, show and delete conversations.",
    "models": "List the installed models.",
    "paths": "Show where settings, history, models and logs are.",
    "serve": "Run the backend in the foreground.",
    "status": "Show how the backend is.",
    "stop": "End the background backend.",
}
"""Each is a module of this package; its help line stands here, so that listing the commands imports none."""


class LazyGroup(click.Group):
    """Imports a command when it is called, and reads a command line without one as `chat`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"llama_chat.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {"--help", "-h", "--version"}
        names_none = not args or (args[0].startswith("-") and args[0] not in own)
        if names_none and not ctx.resilient_parsing:
            args = ["chat", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Interrupts and closed pipes end a command here, where click has not yet written anything about them."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(ExitCode.INTERRUPTED) from None
        except BrokenPipeError:
            raise click.exceptions.Exit(ExitCode.CLOSED_PIPE) from None


def show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"llama-chat {version('llama-chat')}")
        ctx.exit()


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=show_version, help="Show it.")
def cli() -> None:
    """Chat with Llama 2 and its kin, on this machine.

    Without a command, `llama-chat` opens the chat in the terminal.
    """


def main() -> NoReturn:
    output.prepare_streams()
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """Runs a command line; its exit code."""
    try:
        result = cli.main(args, prog_name="llama-chat", standalone_mode=False)
    except click.ClickException as error:
        output.complain(error.format_message())
        return error.exit_code
    except click.Abort:
        return ExitCode.INTERRUPTED
    except (ChatError, BackendError) as error:
        output.complain(str(error))
        return exit_code(error)
    except Exception as error:  # noqa: BLE001 - the outermost edge: a person gets a line, not a traceback
        return _fault(error)
    return result if isinstance(result, int) else ExitCode.ANSWER


def _fault(error: Exception) -> int:
    if os.environ.get("LLAMA_CHAT_DEBUG"):
        import traceback

        traceback.print_exc()
    detail = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    output.complain(f"something went wrong inside ({detail}); LLAMA_CHAT_DEBUG=1 shows where")
    return ExitCode.FAILURE
