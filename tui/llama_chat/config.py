"""The settings in force, and where each came from.

One name each: `ctx_size` in a file is `LLAMA_CHAT_CTX_SIZE` in the environment and `--ctx-size` on the command line.
The order is option, environment, project file, user file, default. A project file comes with whatever somebody
checked out, so it may only name an installed model and say how answers read: it can neither send prompts elsewhere
nor point at files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta, Struct, field

from llama_backend.server_config import LogFormat
from llama_backend.wire.api import SamplingParams
from llama_backend.wire.ipc import KVType
from llama_chat.errors import ConfigError

PREFIX = "LLAMA_CHAT_"
PROJECT_FILE = ".llama-chat.toml"
_LARGEST_FILE = 1 << 20

Count = Annotated[int, Meta(ge=1, le=1 << 24)]


class NamedTarget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A backend elsewhere, as `[targets.NAME]` in the user's file describes it."""

    url: str
    """`http://…`, `https://…` or `kube://namespace/service[:port]`."""
    key_file: str | None = None
    """File with the API key."""
    key_env: str | None = None
    """Environment variable with the API key."""


class Settings(SamplingParams, frozen=True, kw_only=True):
    """Every setting with its default; how answers are sampled comes from SamplingParams."""

    model: str | None = None
    """An installed model's name, or the path of a GGUF file; None is the default model."""
    system: str = ""
    """The system prompt."""
    stream: bool = True
    """Whether `ask` writes the answer as it comes."""
    log: bool = True
    """Whether conversations are kept in the history."""
    theme: str | None = None
    """The colours of the chat, one of Textual's themes; None is its default."""
    url: str | None = None
    """A backend elsewhere, by its URL; None is the local one."""
    target: str | None = None
    """A backend elsewhere, by its URL or its name among `targets`; `local` is this machine's."""
    targets: dict[str, NamedTarget] = field(default_factory=dict)
    api_key_file: str | None = None
    """File with one API key a line; the first is sent to a backend elsewhere, any is accepted by `serve`."""
    allow_origin: str | None = None
    """Origins whose web pages may use `serve`, with commas between them; None is no page of others."""
    metrics_open: bool = False
    """Whether `serve` tells its metrics without a key."""
    tls_cert: str | None = None
    """File with a certificate chain (PEM), with which `serve` speaks HTTPS on TCP."""
    tls_key: str | None = None
    """File with the certificate's private key."""
    log_format: LogFormat = "text"
    """What `serve` logs: lines for persons (`text`), or JSON lines (`json`)."""
    models_dir: str | None = None
    """Folder with the models."""
    host: str | None = None
    """Address that `serve` listens on; None is the socket only."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    socket: str | None = None
    """Unix socket that `serve` listens on."""
    ctx_size: Annotated[int, Meta(ge=16, le=1 << 24)] | None = None
    """Tokens of one conversation; None is the model's own, at most 4,096."""
    parallel: Annotated[int, Meta(ge=1, le=256)] | None = None
    """Answers that are computed at the same time; None is four that share the cells of one context."""
    threads: Annotated[int, Meta(ge=1, le=1024)] | None = None
    """Threads for computing; None is what the processors allow, and fewer while others use these."""
    gpu_layers: Annotated[int, Meta(ge=-1, le=10_000)] | Literal["auto"] = "auto"
    """Layers on GPUs; -1 is all, and `auto` as many as fit into their free memory."""
    tensor_split: Annotated[str, Meta(pattern=r"^\d+(\.\d+)?(,\d+(\.\d+)?)*$")] | None = None
    """Parts of the model for each GPU, as in `3,1`; None is by their free memory."""
    main_gpu: Annotated[int, Meta(ge=0, le=15)] | None = None
    """The only GPU to use, counted from 0; None is all."""
    kv_type: KVType = "f16"
    """How keys and values are kept: `q8_0` takes 53 % of the memory of `f16`, `q4_0` takes 28 %."""
    kv_layout: Literal["auto", "unified", "split"] = "auto"
    """One pool of KV cells for all answers, or cells of its own for each; `auto` is by `parallel` and memory."""
    kv_cells: Annotated[int, Meta(ge=1, le=1 << 30)] | None = None
    """Tokens in that pool, one context at least; None is by `parallel` and memory."""
    flash_attention: Literal["auto", "on", "off"] = "auto"
    batch_size: Annotated[int, Meta(ge=1, le=1 << 16)] | None = None
    """The most tokens of a step; None is 512, and 2048 on a GPU."""
    ubatch_size: Annotated[int, Meta(ge=1, le=1 << 16)] | None = None
    """The most tokens that are computed at once in a step; None is 128, and 512 on a GPU."""
    idle_exit: Annotated[float, Meta(ge=0, le=1e9)] | None = None
    """Seconds without a request until a backend ends, 0 is never; None is 600 in the background, else never."""
    models_max: Annotated[int, Meta(ge=1, le=256)] | None = None
    """Most models that `serve` keeps loaded; requests may then name any installed one. None serves one alone."""
    model_idle: Annotated[float, Meta(ge=0, le=1e9)] | None = None
    """Seconds without a request until `serve` unloads a model; 0 is never, the default."""
    request_timeout: Annotated[float, Meta(ge=0, le=1e6)] | None = None
    """Most seconds that `serve` lets a request take; 0 is no limit, the default."""
    resume_grace: Annotated[float, Meta(ge=0, le=86_400)] = 30.0
    """Seconds that `serve` goes on with an answer whose client lost its connection and may come back."""
    drain: Annotated[float, Meta(ge=0, le=86_400)] = 30.0
    """Seconds that running answers get after SIGTERM before they are ended with an error."""
    kv_cache_dir: str | None = None
    """Folder for KV states on disk; None is one below the user's cache folder."""
    kv_cache_size: Annotated[int, Meta(ge=0, le=1 << 30)] = 2048
    """MiB of KV states on disk, so that conversations go on at once after a restart; 0 keeps none."""
    kv_cache_ram: Annotated[int, Meta(ge=0, le=1 << 30)] = 256
    """MiB of KV states in RAM beside the context, of conversations that had to give way; 0 keeps none."""
    kv_sharing: Literal["account", "all"] = "account"
    """Who finds what was computed for a beginning: requests with keys of the same account, or all."""
    speculation: Literal["auto", "off"] = "auto"
    """Whether tokens that may come next are computed along: `auto` is where it is measured to pay."""
    draft_model: str | None = None
    """A smaller model of the same vocabulary, by name or path, that guesses those tokens too."""


NAMES = tuple(name for name in Settings.__struct_fields__ if name != "max_completion_tokens")
SAMPLING_NAMES = tuple(name for name in SamplingParams.__struct_fields__ if name in NAMES)
_RIVALS = {"url": "target", "target": "url"}
"""Of two that say the same, the one from the stronger source counts."""
PROJECT_NAMES = frozenset({"model", "system", "stream", *SAMPLING_NAMES})


@dataclass(frozen=True)
class Config:
    """The settings, and for each name its source: an option, a variable, a file or `default`."""

    settings: Settings
    sources: Mapping[str, str]


def load(options: Mapping[str, Any], *, user_file: Path, folder: Path) -> Config:
    """The settings for a command that was given `options` (None is not given) and runs in `folder`.

    Raises ConfigError.
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
    return Config(Settings(**values), {name: sources.get(name, "default") for name in NAMES})


def _found(options: Mapping[str, Any], user_file: Path, folder: Path) -> Iterator[tuple[str, Any, str]]:
    """What each source sets, from the weakest to the strongest."""
    project_file = _project_file(folder)
    for file, allowed in ((user_file, frozenset(NAMES)), (project_file, PROJECT_NAMES)):
        for name, value in _from_file(file, allowed) if file else ():
            yield name, value, str(file)
    for name in NAMES:
        variable = PREFIX + name.upper()
        text = os.environ.get(variable)
        if text and not _is_service_link(name, text):
            yield name, parse(name, text, variable), variable
    for name, value in options.items():
        if value is not None:
            yield name, value, "option"


def _is_service_link(name: str, text: str) -> bool:
    """Whether Kubernetes wrote the variable: beside a Service `llama-chat`, LLAMA_CHAT_PORT is its `tcp://…` URL."""
    return name == "port" and "://" in text


def parse(name: str, text: str, where: str) -> Any:
    """The value of setting `name` from the text of an option or a variable; raises ConfigError."""
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


def _types() -> dict[str, Any]:
    return get_type_hints(Settings, include_extras=True)


def _expectation(error: msgspec.ValidationError) -> str:
    """What msgspec expected, without what it got, which we show as it was written."""
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
            why = "may not be set by a project" if name in NAMES else "is no setting"
            raise ConfigError(f"{file}: {name!r} {why}; allowed are {', '.join(sorted(allowed))}")
        checked = check(name, value, str(file))
        if name == "model" and allowed is PROJECT_NAMES and _is_path(checked):
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
        raise ConfigError(f"{file}: it is larger than a file of settings can be")
    return _parsed(file, text)


def _parsed(file: Path, text: bytes) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text.decode())
    except ValueError as error:
        raise ConfigError(f"{file}: {error}") from error
