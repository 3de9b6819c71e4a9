"""The settings in force, and where each came from.

A setting (see `settings`) has one name: `ctx_size` in a file is `LLAMA_CHAT_CTX_SIZE` in the environment and
`--ctx-size` on the command line. The order is option, environment, project file, user file, default.

A project file comes with whatever somebody downloaded, so it is not trusted: it can choose an installed model, the
system prompt and how answers are sampled, but it can neither send prompts elsewhere nor name files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from llama_chat.errors import ConfigError
from llama_chat.settings import SETTINGS, Settings

PROJECT_FILE = ".llama-chat.toml"
_LARGEST_FILE = 1 << 20
"""Bytes of a file with settings."""
_RIVALS = {"url": "target", "target": "url"}
"""Two settings with one meaning: if both are given, the one from the stronger source counts."""
_PROJECT_NAMES = frozenset(name for name, setting in SETTINGS.items() if setting.in_project)
_ALL_NAMES = frozenset(SETTINGS)


@dataclass(frozen=True)
class Config:
    """The settings, and for each name its source: an option, a variable, a file or `default`."""

    settings: Settings
    sources: Mapping[str, str]


def variable_of(name: str) -> str:
    """The environment variable of a setting, or of an option that belongs to one call."""
    return "LLAMA_CHAT_" + name.upper().replace("-", "_")


def load(options: Mapping[str, Any], *, user_file: Path, folder: Path) -> Config:
    """The settings for a command that runs in `folder`; `options` are those of its command line, None is not given.

    Raises ConfigError where a source sets something that is not a setting, or a value of the wrong type.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, value, source in _found(options, user_file, folder):
        rival = _RIVALS.get(name)
        if rival and sources.get(rival) == source:
            raise ConfigError(f"{source}: url and target name the same thing; give one of them")
        if rival in values:
            del values[rival], sources[rival]
        values[name], sources[name] = value, source
    return Config(Settings(**values), {name: sources.get(name, "default") for name in SETTINGS})


def _found(options: Mapping[str, Any], user_file: Path, folder: Path) -> Iterator[tuple[str, Any, str]]:
    """What each source sets as name, value and source, from the weakest source to the strongest."""
    project_file = _project_file(folder)
    for file, allowed in ((user_file, _ALL_NAMES), (project_file, _PROJECT_NAMES)):
        for name, value in _from_file(file, allowed) if file else ():
            yield name, value, str(file)
    for name in SETTINGS:
        variable = variable_of(name)
        text = os.environ.get(variable)
        if text and not _is_service_link(name, text):
            yield name, parse(name, text, variable), variable
    for name, value in options.items():
        if value is not None:
            yield name, value, "option"


def _is_service_link(name: str, text: str) -> bool:
    """Whether Kubernetes set the variable: a Service named `llama-chat` makes LLAMA_CHAT_PORT a `tcp://…` URL."""
    return name == "port" and "://" in text


def parse(name: str, text: str, where: str) -> Any:
    """The value of setting `name` from the text of an option or a variable; `where` names that in the ConfigError."""
    kind = _types()[name]
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.MsgspecError:
            raise ConfigError(f"{where}: {_expectation(error)}, got {text!r}") from error


def check(name: str, value: Any, where: str) -> Any:
    """The value of setting `name` as a file gives it; raises ConfigError."""
    try:
        return msgspec.convert(value, _types()[name])
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {name}: {_expectation(error)}, got {value!r}") from error


@cache
def _types() -> dict[str, Any]:
    return get_type_hints(Settings, include_extras=True)


def _expectation(error: msgspec.ValidationError) -> str:
    """What msgspec expected; what it got is left out, since we show that as it was written."""
    expected = str(error).split(", got ")[0].replace(" | null", "").replace("`", "")
    return expected[0].lower() + expected[1:]


def _project_file(folder: Path) -> Path | None:
    """The nearest project file from `folder` upward that this user or root owns."""
    for parent in (folder, *folder.parents):
        file = parent / PROJECT_FILE
        try:
            if file.is_file() and file.stat().st_uid in (os.geteuid(), 0):
                return file
        except OSError:
            continue
    return None


def _from_file(file: Path, allowed: frozenset[str]) -> Iterator[tuple[str, Any]]:
    for name, value in _read(file).items():
        if name not in allowed:
            why = "may not be set by a project" if name in SETTINGS else "is not a setting"
            raise ConfigError(f"{file}: {name!r} {why}; allowed are {', '.join(sorted(allowed))}")
        checked = check(name, value, str(file))
        if name == "model" and allowed is _PROJECT_NAMES and _is_path(checked):
            raise ConfigError(f"{file}: model: a project may name an installed model, not a file, got {value!r}")
        yield name, checked


def _is_path(model: str) -> bool:
    return "/" in model or "\\" in model or model.lower().endswith(".gguf")


def _read(file: Path) -> dict[str, Any]:
    """The table in a TOML file; empty where the file is missing."""
    try:
        with file.open("rb") as opened:
            text = opened.read(_LARGEST_FILE + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    if len(text) > _LARGEST_FILE:
        raise ConfigError(f"{file}: a file of settings has at most {_LARGEST_FILE >> 20} MiB")
    return _parsed(file, text)


def _parsed(file: Path, text: bytes) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text.decode())
    except ValueError as error:
        raise ConfigError(f"{file}: {error}") from error
