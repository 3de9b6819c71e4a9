"""The options of the commands: those that set a setting, and those that belong to one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llama_chat import config
from llama_chat.backends.targets import find_target
from llama_chat.config import Config
from llama_chat.errors import UsageError
from llama_chat.paths import Paths, user_paths
from llama_chat.settings import SETTINGS, Settings, default_text, flags_of, metavar_of

if TYPE_CHECKING:
    from llama_chat.backends.remote import RemoteBackend

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Decorator = Callable[[Decorated], Decorated]
Parse = Callable[[str, str], Any]
"""Makes a value from the text of an option; its name, the second argument, is for errors."""


def setting(name: str, parse: Parse | None = None) -> Decorator[Any]:
    """The option of a setting as `Settings` declares it; `parse` reads one whose text is not simply the value."""
    flags = flags_of(name)
    if SETTINGS[name].is_switch:
        return click.option(*flags, name, default=None, help=_setting_help(name))

    def parsed(_: click.Context, __: click.Parameter, given: str | tuple[str, ...] | None) -> Any:
        if given is None or given == ():
            return None
        text = given if isinstance(given, str) else ",".join(given)
        return parse(text, flags[-1]) if parse else config.parse(name, text, flags[-1])

    return click.option(
        *flags,
        name,
        callback=parsed,
        metavar=metavar_of(name),
        multiple=SETTINGS[name].multiple,
        help=_setting_help(name),
    )


def settings(*names: str) -> Decorator[Any]:
    """The options of several settings."""
    return several(*map(setting, names))


def _setting_help(name: str) -> str:
    flag, default = flags_of(name)[-1], default_text(name)
    if SETTINGS[name].is_switch:
        default = flags_of(name)[0].split("/")[0 if default == "true" else 1]
    notes = [f"default: {default}"] if default else []
    if not SETTINGS[name].is_switch and _variable_of_flag(flag) != config.variable_of(name):
        notes.append(f"variable: {config.variable_of(name)}")
    return f"{SETTINGS[name].help}." + (f"  [{'; '.join(notes)}]" if notes else "")


def explain_environment(command: click.Command) -> None:
    """Adds to the help of a command and its subcommands that every option has an environment variable."""
    for param in command.params:
        if isinstance(param, click.Option) and (param.envvar or param.name in SETTINGS):
            variable = param.envvar or config.variable_of(param.name or "")
            command.epilog = f"Each option has an environment variable too: {variable} for {param.opts[-1]}, and so on."
            break
    if isinstance(command, click.Group):
        for below in command.commands.values():
            explain_environment(below)


def _variable_of_flag(flag: str) -> str:
    return config.variable_of(flag.strip("-"))


def call_option(
    name: str,
    *flags: str,
    help: str,
    kind: click.ParamType[Any] | None = None,
    metavar: str | None = None,
    default: str | None = None,
) -> Decorator[Any]:
    """An option with a value that is not a setting, since it belongs to one call."""
    text = f"{help}  [default: {default}]" if default else help
    variable = _variable_of_flag(flags[-1])
    return click.option(*flags, name, type=kind, metavar=metavar, default=default, envvar=variable, help=text)


def call_flag(name: str, *flags: str, help: str) -> Decorator[Any]:
    """As `call_option`, for an option without a value."""
    return click.option(*flags, name, is_flag=True, envvar=_variable_of_flag(flags[-1]), help=help)


def several(*decorators: Decorator[Any]) -> Decorator[Any]:
    """The decorators as one, in the order in which the help shows them."""

    def decorate(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def _sampling(_: click.Context, __: click.Parameter, pairs: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """The settings of `-o KEY VALUE`; several `stop` are a list, and of any other key the last one counts."""
    values: dict[str, Any] = {}
    for key, text in pairs:
        if key not in SAMPLING_NAMES:
            raise UsageError(f"-o: {key!r} is not one of {', '.join(sorted(SAMPLING_NAMES))}")
        value = config.parse(key, text, f"-o {key}")
        values[key] = [*values.get(key, []), value] if key == "stop" else value
    return values


def _json_schema(given: str, where: str) -> Any:
    """The schema of `--schema`: JSON, or a file with it."""
    text = given if given.lstrip().startswith("{") else _read_file(given, where)
    return config.parse("json_schema", text, where)


def _read_file(path: str, where: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"{where}: {path}: {getattr(error, 'strerror', None) or error}") from error


SAMPLING_NAMES = tuple(name for name, found in SETTINGS.items() if found.section == "sampling")
_sampling_option = click.option(
    "sampling",
    "-o",
    "--option",
    nargs=2,
    multiple=True,
    metavar="KEY VALUE",
    callback=_sampling,
    help="Set how tokens are chosen, as in `-o temperature 0.2`; an unknown KEY shows the known ones.",
)
_continue_flag = call_flag(
    "continue_latest", "-c", "--continue", help="Continue the conversation that was written to last."
)
_conversation_option = call_option(
    "conversation_id", "--cid", metavar="ID", help="Continue the conversation with this ID."
)
as_json = call_flag("json", "--json", help="Write JSON.")
json_schema = setting("json_schema", _json_schema)
elsewhere = settings("url", "target")
"""The options of commands that can ask a backend elsewhere."""
attached = several(
    settings("model", "system"),
    _sampling_option,
    setting("max_tokens"),
    _continue_flag,
    _conversation_option,
    setting("log"),
)
"""The options of a conversation, without those that name the backend: `attach` has an argument for that."""
conversation = several(attached, elsewhere)
"""The options of a conversation."""


@dataclass(frozen=True)
class Setup:
    """What a command works with: the settings in force, and the paths that follow from them."""

    config: Config
    paths: Paths

    @property
    def settings(self) -> Settings:
        return self.config.settings


def load(params: Mapping[str, Any]) -> Setup:
    """What a command with these parameters works with."""
    given = {name: value for name, value in params.items() if name in SETTINGS and value is not None}
    found = config.load({**params.get("sampling", {}), **given}, user_file=user_paths().config_file, folder=_folder())
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
