"""The command line for click: a command is imported when it is called, and an error becomes one line."""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Mapping
from typing import Any

import click

from llama_backend.errors import BackendError
from llama_chat.cli.display import output
from llama_chat.errors import ChatError, ExitCode, exit_code
from llama_convert.errors import ConvertError


class LazyGroup(click.Group):
    """Imports a command when it is called, and reads a command line without one as `chat`.

    `lines` has the help of each command by the name of its module.
    """

    def __init__(self, lines: Mapping[str, str]) -> None:
        super().__init__(
            params=[_version_option()],
            context_settings={"help_option_names": ["-h", "--help"]},
            help="Chat with Llama 2 and related models on this machine.\n\n"
            "Without a command, `llama-chat` opens the chat in the terminal.",
        )
        self._lines = lines

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._lines)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lines:
            return None
        module = importlib.import_module(f"llama_chat.cli.commands.{cmd_name}")
        command: click.Command = module.command
        from llama_chat.cli.options import explain_environment

        explain_environment(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(self._lines.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own_options = {"--help", "-h", "--version"}
        has_no_command = not args or (args[0].startswith("-") and args[0] not in own_options)
        if has_no_command and not ctx.resilient_parsing:
            args = ["chat", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command; Ctrl+C and a closed pipe end it here, before click writes anything about them."""
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(ExitCode.INTERRUPTED) from None
        except BrokenPipeError:
            raise click.exceptions.Exit(ExitCode.CLOSED_PIPE) from None


def _version_option() -> click.Option:
    return click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_show_version,
        help="Show the version.",
    )


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"llama-chat {version('llama-chat')}")
        ctx.exit()


def run(lines: Mapping[str, str], args: list[str]) -> int:
    """Runs a command line and returns its exit code."""
    output.prepare_streams()
    try:
        result = LazyGroup(lines).main(args, prog_name="llama-chat", standalone_mode=False)
    except click.ClickException as error:
        output.print_error(error.format_message())
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except (ChatError, BackendError, ConvertError) as error:
        output.print_error(str(error))
        return exit_code(error)
    except Exception as error:  # noqa: BLE001 - the outermost edge: a person gets a line, not a traceback
        return _report_bug(error)
    return result if isinstance(result, int) else ExitCode.ANSWER


def _report_bug(error: Exception) -> int:
    if os.environ.get("LLAMA_CHAT_DEBUG"):
        import traceback

        output.print_note(traceback.format_exc())
    detail = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    output.print_error(f"an error inside llama-chat: {detail}; LLAMA_CHAT_DEBUG=1 shows where")
    return ExitCode.FAILURE
