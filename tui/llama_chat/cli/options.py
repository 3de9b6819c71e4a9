"""Options that set settings: one name on the command line, in the environment and in files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llama_chat import config
from llama_chat.backends.targets import find_target
from llama_chat.config import Config, Settings
from llama_chat.errors import UsageError
from llama_chat.paths import Paths, user_paths

if TYPE_CHECKING:
    from llama_chat.backends.remote import RemoteBackend

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Decorator = Callable[[Decorated], Decorated]


def setting(name: str, *flags: str, help: str, metavar: str = "TEXT", multiple: bool = False) -> Decorator[Any]:
    """An option for one of the settings; its value is checked as a variable's would be.

    One that may be repeated (`multiple`) stands for a value with commas.
    """

    def parsed(_: click.Context, __: click.Parameter, given: str | tuple[str, ...] | None) -> Any:
        if given is None or given == ():
            return None
        return config.parse(name, given if isinstance(given, str) else ",".join(given), flags[-1])

    about = f"{help}  [{config.PREFIX}{name.upper()}]"
    return click.option(*flags, name, callback=parsed, metavar=metavar, multiple=multiple, help=about)


def switch(name: str, *flags: str, help: str) -> Decorator[Any]:
    """An option for a setting that is on or off."""
    return click.option(*flags, name, default=None, help=f"{help}  [{config.PREFIX}{name.upper()}]")


def flag(name: str, *flags: str, help: str) -> Decorator[Any]:
    """An option that is no setting, since it belongs to one call."""
    variable = config.PREFIX + flags[-1].strip("-").replace("-", "_").upper()
    return click.option(*flags, name, is_flag=True, envvar=variable, help=f"{help}  [{variable}]")


def sampling(_: click.Context, __: click.Parameter, pairs: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """The settings of `-o KEY VALUE`; several `stop` add up, of other keys the last one counts."""
    values: dict[str, Any] = {}
    for key, text in pairs:
        if key not in config.SAMPLING_NAMES:
            raise UsageError(f"-o: {key!r} is no option; allowed are {', '.join(sorted(config.SAMPLING_NAMES))}")
        value = config.parse(key, text, f"-o {key}")
        values[key] = [*values.get(key, []), value] if key == "stop" else value
    return values


def schema(_: click.Context, __: click.Parameter, given: str | None) -> Any:
    """The JSON schema of `--schema`: JSON, or a file with it."""
    if given is None:
        return None
    text = given if given.lstrip().startswith("{") else _read_file(given, "--schema")
    return config.parse("json_schema", text, "--schema")


def _read_file(path: str, where: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"{where}: {path}: {getattr(error, 'strerror', None) or error}") from error


model = setting("model", "-m", "--model", metavar="NAME|PATH", help="Installed model, or a GGUF file.")
url = setting("url", "--url", metavar="URL", help="Backend elsewhere, instead of the local one.")
target = setting("target", "--target", metavar="NAME|URL", help="Configured backend, or `local`.")
system = setting("system", "-s", "--system", help="System prompt of a new conversation.")
max_tokens = setting("max_tokens", "--max-tokens", metavar="N", help="Most tokens of the answer.")
log = switch("log", "--log/--no-log", " /-n", help="Whether to keep the conversation in the history.")
option = click.option(
    "options",
    "-o",
    "--option",
    nargs=2,
    multiple=True,
    metavar="KEY VALUE",
    callback=sampling,
    help="How tokens are chosen: `-o temperature 0.2`.  [LLAMA_CHAT_TEMPERATURE and so on]",
)
json_schema = click.option(
    "json_schema",
    "--schema",
    metavar="FILE|JSON",
    callback=schema,
    help="JSON schema that the answer must satisfy; exit 6 where it does not.  [LLAMA_CHAT_JSON_SCHEMA]",
)
resume = flag("resume", "-c", "--continue", help="Go on with the conversation that was written to last.")
conversation_id = click.option(
    "conversation_id",
    "--cid",
    metavar="ID",
    envvar="LLAMA_CHAT_CID",
    help="Go on with this conversation.  [LLAMA_CHAT_CID]",
)
as_json = flag("json", "--json", help="Write JSON.")


def several(*decorators: Decorator[Any]) -> Decorator[Any]:
    """The decorators as one, in the order in which the help shows them."""

    def decorate(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


elsewhere = several(url, target)
attached = several(model, system, option, max_tokens, resume, conversation_id, log)
conversation = several(attached, elsewhere)


@dataclass(frozen=True)
class Setup:
    """What a command works with."""

    config: Config
    paths: Paths

    @property
    def settings(self) -> Settings:
        return self.config.settings


def load(params: Mapping[str, Any]) -> Setup:
    """The settings in force for a command with these parameters, and the paths that follow from them."""
    given = {name: value for name, value in params.items() if name in config.NAMES}
    chosen = {**params.get("options", {}), **{name: value for name, value in given.items() if value is not None}}
    found = config.load(chosen, user_file=user_paths().config_file, folder=_folder())
    models = found.settings.models_dir
    return Setup(found, user_paths(Path(models).expanduser().absolute() if models else None))


def remote(settings: Settings) -> RemoteBackend | None:
    """The connection to the backend elsewhere that the settings name, or None for the local one."""
    target = find_target(settings)
    if target is None:
        return None
    from llama_chat.backends.remote import RemoteBackend
    from llama_chat.backends.tunnel import make_route

    return RemoteBackend(settings, make_route(target, settings.api_key_file), target.name)


def _folder() -> Path:
    """The working directory, or one without a project file where it has been removed."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path("/")
