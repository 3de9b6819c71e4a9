"""The settings: each with its name, type, default and meaning, declared here and nowhere else.

The options of the commands, the environment variables, the keys of the TOML files, `llama-chat config` and the table
in docs/settings.md all follow from `Settings` and `SETTINGS`. How the values are found is in `config`.

The annotations are evaluated as the module is imported, since every command reads them to build its options; so there
is no `from __future__ import annotations`.
"""

from types import MappingProxyType
from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct, field

from llama_backend.server_config import LogFormat, ServerConfig
from llama_backend.wire.api import SamplingParams
from llama_backend.wire.ipc import EngineConfig, KVSharing, KVType

BACKGROUND_IDLE_EXIT = 600.0
"""Seconds without a request until a backend in the background ends."""

Section = Literal["common", "compute", "serve", "sampling"]
"""What a setting is for: every command, how a backend computes, `serve` alone, or how tokens are chosen."""

_ENGINE = EngineConfig(path="")
_SERVER = ServerConfig(model="", engine=_ENGINE)
"""Used only for their defaults, which the settings share."""
_MIB = 1 << 20

Seconds = Annotated[float, Meta(ge=0, le=1e9)]
GraceSeconds = Annotated[float, Meta(ge=0, le=86_400)]
Batch = Annotated[int, Meta(ge=1, le=1 << 16)]
MiB = Annotated[int, Meta(ge=0, le=1 << 30)]


class Setting(Struct, frozen=True):
    """What the annotation of a setting says beside its type."""

    section: Section
    help: str
    """One sentence without its full stop."""
    metavar: str = ""
    """What help shows in place of the value; empty means that it follows from the type."""
    flags: tuple[str, ...] | None = None
    """How click writes its option; None is `--` and the name, and an empty tuple is no option of its own."""
    unset: str = ""
    """What happens where the setting is None, which help shows as its default."""
    multiple: bool = False
    """Whether the option can be repeated; the value is then the list with commas."""
    in_project: bool = False
    """Whether a project file may set it."""

    @property
    def is_switch(self) -> bool:
        """Whether its option is two flags, one for on and one for off."""
        return self.flags is not None and any("/" in flag for flag in self.flags)


class NamedTarget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A backend elsewhere, as `[targets.NAME]` in the user's file describes it."""

    url: str
    """`http://…`, `https://…` or `kube://namespace/service[:port]`."""
    key_file: str | None = None
    """File with the API key."""
    key_env: str | None = None
    """Environment variable with the API key."""


class Settings(SamplingParams, frozen=True, kw_only=True):
    """Every setting with its default; those that choose tokens come from SamplingParams."""

    model: Annotated[
        str | None,
        Setting(
            "common",
            "Model to use: the name of an installed one, or the path of a GGUF file",
            "NAME|PATH",
            flags=("-m", "--model"),
            unset="the only installed one",
            in_project=True,
        ),
    ] = None
    system: Annotated[
        str,
        Setting("common", "System prompt of a new conversation", flags=("-s", "--system"), in_project=True),
    ] = ""
    stream: Annotated[
        bool,
        Setting(
            "common",
            "Whether `ask` writes the answer as it arrives, or at its end",
            flags=("--stream/--no-stream",),
            in_project=True,
        ),
    ] = True
    log: Annotated[
        bool,
        Setting("common", "Whether conversations are kept in the history", flags=("--log/--no-log", " /-n")),
    ] = True
    theme: Annotated[
        str | None, Setting("common", "Theme of the chat, which sets its colours", flags=(), unset="Textual's default")
    ] = None
    url: Annotated[
        str | None, Setting("common", "URL of a backend elsewhere, to use instead of the local one", "URL")
    ] = None
    target: Annotated[
        str | None,
        Setting(
            "common", "Backend elsewhere, by its URL or its name in config.toml; `local` is this machine's", "NAME|URL"
        ),
    ] = None
    targets: Annotated[
        dict[str, NamedTarget], Setting("common", "Backends elsewhere, by the names that `target` takes", flags=())
    ] = field(default_factory=dict)
    api_key_file: Annotated[
        str | None,
        Setting(
            "common",
            "File with API keys, one a line; `serve` accepts each of them on TCP, and the first is sent to a backend"
            " elsewhere",
            "FILE",
        ),
    ] = None
    models_dir: Annotated[
        str | None, Setting("common", "Folder with the models", flags=(), unset="as `llama-chat paths` shows")
    ] = None

    host: Annotated[
        str | None,
        Setting("serve", "TCP address to listen on", "ADDRESS", unset="127.0.0.1, or no TCP if only --socket is given"),
    ] = None
    port: Annotated[Annotated[int, Meta(ge=0, le=65535)], Setting("serve", "TCP port to listen on", "N")] = _SERVER.port
    socket: Annotated[
        str | None, Setting("serve", "Unix socket to listen on", "PATH", unset="where chats on this machine look")
    ] = None
    allow_origin: Annotated[
        str | None,
        Setting(
            "serve",
            "Web origin whose pages may use the server; can be given several times, or as a list with commas",
            "ORIGIN",
            unset="none",
            multiple=True,
        ),
    ] = None
    tls_cert: Annotated[
        str | None, Setting("serve", "Certificate chain (PEM) for HTTPS; read again when the file changes", "FILE")
    ] = None
    tls_key: Annotated[
        str | None,
        Setting("serve", "Private key of the certificate in --tls-cert; read again when the file changes", "FILE"),
    ] = None
    metrics_open: Annotated[
        bool,
        Setting("serve", "Whether /metrics can be read without a key", flags=("--metrics-open/--metrics-guarded",)),
    ] = _SERVER.metrics_open
    models_max: Annotated[
        Annotated[int, Meta(ge=1, le=256)] | None,
        Setting(
            "serve", "Serve all installed models, and keep at most this many loaded", "N", unset="one model is served"
        ),
    ] = None
    model_idle: Annotated[
        Seconds | None,
        Setting(
            "serve", "Seconds without a request after which a model is unloaded; 0 is never", "SECONDS", unset="never"
        ),
    ] = None
    request_timeout: Annotated[
        Annotated[float, Meta(ge=0, le=1e6)] | None,
        Setting("serve", "Maximum seconds that a request may take; 0 is no limit", "SECONDS", unset="no limit"),
    ] = None
    resume_grace: Annotated[
        GraceSeconds,
        Setting("serve", "Seconds for which an answer continues after its client has lost the connection", "SECONDS"),
    ] = _SERVER.resume_grace
    drain: Annotated[
        GraceSeconds, Setting("serve", "Seconds that running answers get to finish after SIGTERM", "SECONDS")
    ] = _SERVER.drain
    kv_sharing: Annotated[
        KVSharing,
        Setting("serve", "Which requests can reuse a KV state: those of the account that computed it, or all"),
    ] = _ENGINE.kv_sharing
    log_format: Annotated[LogFormat, Setting("serve", "Log lines for people (text) or for programs (json)")] = (
        _SERVER.log_format
    )

    ctx_size: Annotated[
        Annotated[int, Meta(ge=16, le=1 << 24)] | None,
        Setting("compute", "Tokens that one conversation can have", "N", unset="the model's own, at most 4096"),
    ] = None
    parallel: Annotated[
        Annotated[int, Meta(ge=1, le=256)] | None,
        Setting(
            "compute",
            "Answers computed at the same time, each with a context of its own",
            "N",
            unset="4 that share one context",
        ),
    ] = None
    threads: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | None,
        Setting("compute", "CPU threads", "N", unset="chosen and adjusted while running"),
    ] = None
    gpu_layers: Annotated[
        Annotated[int, Meta(ge=-1, le=10_000)] | Literal["auto"],
        Setting("compute", "Layers of the model on GPUs; auto is as many as fit, and -1 is all", "auto|N"),
    ] = "auto"
    tensor_split: Annotated[
        Annotated[str, Meta(pattern=r"^\d+(\.\d+)?(,\d+(\.\d+)?)*$")] | None,
        Setting(
            "compute", "How the model is divided among several GPUs, such as 3,1", "A,B,…", unset="by their free memory"
        ),
    ] = None
    main_gpu: Annotated[
        Annotated[int, Meta(ge=0, le=15)] | None,
        Setting("compute", "The only GPU to use, counted from 0", "N", unset="all GPUs"),
    ] = None
    kv_type: Annotated[
        KVType,
        Setting("compute", "Type of the KV cache; q8_0 takes 53 % of the memory of f16, and q4_0 takes 28 %"),
    ] = _ENGINE.kv_type
    kv_layout: Annotated[
        Literal["auto", "unified", "split"],
        Setting(
            "compute",
            "One pool of KV cells for all answers (unified), or separate cells for each (split); auto chooses by"
            " --parallel and memory",
        ),
    ] = "auto"
    kv_cells: Annotated[
        Annotated[int, Meta(ge=1, le=1 << 30)] | None,
        Setting(
            "compute",
            "Tokens that the unified pool holds, at least one context",
            "N",
            unset="chosen by --parallel and memory",
        ),
    ] = None
    flash_attention: Annotated[
        Literal["auto", "on", "off"], Setting("compute", "Flash attention; auto switches it on where it works")
    ] = "auto"
    batch_size: Annotated[
        Batch | None, Setting("compute", "Maximum tokens in one step", "N", unset="512, or 2048 on a GPU")
    ] = None
    ubatch_size: Annotated[
        Batch | None,
        Setting("compute", "Maximum tokens computed at once within a step", "N", unset="128, or 512 on a GPU"),
    ] = None
    speculation: Annotated[
        Literal["auto", "off"],
        Setting("compute", "Compute guessed next tokens together; auto does so where measurements show a gain"),
    ] = "auto"
    draft_model: Annotated[
        str | None,
        Setting(
            "compute", "Smaller model with the same vocabulary, which guesses tokens for --speculation", "NAME|PATH"
        ),
    ] = None
    kv_cache_dir: Annotated[
        str | None,
        Setting("compute", "Folder for the KV states of conversations", "FOLDER", unset="as `llama-chat paths` shows"),
    ] = None
    kv_cache_size: Annotated[MiB, Setting("compute", "Maximum MiB of KV states on disk; 0 keeps none", "MIB")] = (
        _ENGINE.kv_disk // _MIB
    )
    kv_cache_ram: Annotated[
        MiB, Setting("compute", "Maximum MiB of KV states in RAM beside the context; 0 keeps none", "MIB")
    ] = _ENGINE.kv_ram // _MIB
    idle_exit: Annotated[
        Seconds | None,
        Setting(
            "compute",
            "Seconds without a request after which the backend ends; 0 is never",
            "SECONDS",
            unset=f"never for `serve`, and {BACKGROUND_IDLE_EXIT:g} for a backend in the background",
        ),
    ] = None


def _sampling(help: str, *, flags: tuple[str, ...] = (), metavar: str = "", unset: str = "") -> Setting:
    """A setting of SamplingParams: it is set by `-o NAME VALUE` unless it has an option of its own."""
    return Setting("sampling", help, metavar, flags=flags, unset=unset, in_project=True)


_SAMPLING = {
    "temperature": _sampling("Randomness in the choice of tokens; 0 always takes the most likely one"),
    "dynatemp_range": _sampling("How far the temperature moves up and down with the entropy; 0 is off"),
    "dynatemp_exponent": _sampling("Exponent with which the entropy becomes a temperature"),
    "top_k": _sampling("Only the k most likely tokens; 0 is off"),
    "top_p": _sampling("Only the most likely tokens that together have this probability; 1 is off"),
    "min_p": _sampling("Only tokens with at least this share of the highest probability; 0 is off"),
    "typical_p": _sampling("Locally typical sampling; 1 is off"),
    "top_n_sigma": _sampling("Only logits within this many standard deviations of the highest; 0 or less is off"),
    "xtc_probability": _sampling("How often XTC leaves out the most likely tokens; 0 is off"),
    "xtc_threshold": _sampling("Probability from which XTC counts a token as likely"),
    "min_keep": _sampling("Tokens that top-p, min-p, typical and XTC always leave"),
    "repeat_penalty": _sampling("Penalty for repeated tokens; 1 is off"),
    "repeat_last_n": _sampling("How many tokens back the penalties look"),
    "frequency_penalty": _sampling("Penalty that grows with each repetition; 0 is off"),
    "presence_penalty": _sampling("Penalty for tokens that have come before; 0 is off"),
    "dry_multiplier": _sampling("Strength of DRY, a penalty for repeated sequences; 0 is off"),
    "dry_base": _sampling("How fast DRY's penalty grows with the length of the sequence"),
    "dry_allowed_length": _sampling("Length up to which DRY allows repetitions"),
    "dry_penalty_last_n": _sampling("How many tokens back DRY looks"),
    "dry_sequence_breakers": _sampling("Texts at which DRY stops looking for a repetition, as a JSON list"),
    "mirostat": _sampling("Version of mirostat, 1 or 2; 0 is off"),
    "mirostat_tau": _sampling("Target entropy of mirostat"),
    "mirostat_eta": _sampling("Learning rate of mirostat"),
    "adaptive_target": _sampling("Probability near which adaptive-p chooses; negative is off"),
    "adaptive_decay": _sampling("How much earlier tokens count for adaptive-p"),
    "seed": _sampling("Seed of the random numbers", unset="a new one for each answer"),
    "logit_bias": _sampling("What is added to the logits of tokens, as a JSON object from token ids to numbers"),
    "stop": _sampling("Text at which the answer ends, or a JSON list of such texts"),
    "max_tokens": _sampling(
        "Maximum tokens in the answer", flags=("--max-tokens",), metavar="N", unset="as many as the context holds"
    ),
    "ignore_eos": _sampling("Whether to continue when the model wants to end"),
    "grammar": _sampling("Grammar (GBNF) that the answer follows"),
    "json_schema": _sampling(
        "JSON schema that the answer must satisfy; where it does not, `ask` ends with exit code 6",
        flags=("--schema",),
        metavar="FILE|JSON",
    ),
}
"""The settings that SamplingParams declares; `max_completion_tokens`, another name for `max_tokens`, is only for
requests of programs."""


def _declared() -> dict[str, Setting]:
    """Every setting by its name, those for all commands first."""
    own = {
        name: next(found for found in annotation.__metadata__ if isinstance(found, Setting))
        for name, annotation in Settings.__annotations__.items()
    }
    return own | _SAMPLING


SETTINGS = MappingProxyType(_declared())
"""What help and documents say about each setting, in the order of declaration."""


def in_section(*sections: Section) -> tuple[str, ...]:
    """The names of the settings for these uses, without those that have no option."""
    return tuple(name for name, setting in SETTINGS.items() if setting.section in sections and setting.flags != ())


def flags_of(name: str) -> tuple[str, ...]:
    """The option of a setting as click writes it."""
    flags = SETTINGS[name].flags
    return (f"--{name.replace('_', '-')}",) if flags is None else flags


def metavar_of(name: str) -> str:
    """What help shows in place of the value: the choices where the type has some."""
    declared = SETTINGS[name].metavar
    if declared:
        return declared
    kind = get_args(Settings.__annotations__[name])[0]
    choices = get_args(kind)
    return "|".join(choices) if choices and all(isinstance(choice, str) for choice in choices) else "TEXT"


def default_text(name: str) -> str:
    """The default as help and documents show it; empty where there is nothing to show."""
    value = getattr(_DEFAULTS, name)
    if value is None or value in ("", {}):
        return SETTINGS[name].unset
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


_DEFAULTS = Settings()
