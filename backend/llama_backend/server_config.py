"""How a server is started. It is passed to a background process as JSON, so it holds no secrets, only their files."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from llama_backend.wire.ipc import EngineConfig

LogFormat = Literal["text", "json"]


class ServerConfig(Struct, frozen=True, kw_only=True):
    """The settings of one server process, with their defaults: models, addresses, access, limits, shutdown, log."""

    model: str
    """The name under which the model is served."""
    engine: EngineConfig
    models_folder: str | None = None
    """Folder of other models that requests may name; they are loaded on demand."""
    models_max: int | None = None
    """Most models that are loaded at the same time; None means that only `model` is served."""
    model_idle: float | None = None
    """Seconds without a request after which a model is unloaded; None means never."""
    host: str | None = None
    """Address to listen on with TCP; None means only the Unix socket."""
    port: int = 8080
    socket: str | None = None
    """Path of the Unix socket to listen on."""
    socket_fd: int | None = None
    """File descriptor of a Unix socket that the parent process has bound to the path `socket`."""
    api_key_file: str | None = None
    """File with one API key per line. Keys are needed on TCP, never on the Unix socket."""
    allow_origins: tuple[str, ...] = ()
    """Origins whose web pages may use the server, in addition to its own."""
    metrics_open: bool = False
    """Whether `/metrics` needs no key, like the probes."""
    tls_cert: str | None = None
    """File with the certificate chain for TCP (PEM); None means HTTP without TLS."""
    tls_key: str | None = None
    """File with the private key of the certificate."""
    idle_exit: float | None = None
    """Seconds without a request after which the server ends; None means never."""
    max_queue: int = 256
    """Answers that may wait for a slot; requests for more get 429."""
    request_timeout: float | None = None
    """Most seconds that a request may take, even where it asks for more; None means no limit."""
    heartbeat: float = 15.0
    """Seconds without an event in a stream after which a comment is sent."""
    resume_grace: float = 30.0
    """Seconds that a resumable answer goes on, and is kept, after its connection has broken."""
    drain: float = 30.0
    """Seconds that running answers may still take after SIGTERM."""
    stall: float = 600.0
    """Seconds that one step of the engine may take before `/livez` reports that it hangs."""
    log_format: LogFormat = "text"
    """How lines on standard error are written."""
    log: str | None = None
    """The file that standard error is written to, which `status` shows."""
