"""How a backend is started; handed as JSON to a background process, so it holds no secret."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from llama_backend.wire.ipc import EngineConfig

LogFormat = Literal["text", "json"]


class ServerConfig(Struct, frozen=True, kw_only=True):
    """One server process: its model, where it listens and when it ends."""

    model: str
    """The name under which the model is served."""
    engine: EngineConfig
    models_folder: str | None = None
    """Where other models are that requests may name; they are loaded when they are asked for."""
    models_max: int | None = None
    """Most models that are loaded at the same time; None serves `model` alone."""
    model_idle: float | None = None
    """Seconds without a request after which a model is unloaded; None is never."""
    host: str | None = None
    """Address for TCP; None listens on the socket only."""
    port: int = 8080
    socket: str | None = None
    """Path of a Unix socket to bind."""
    socket_fd: int | None = None
    """A socket that is bound already and inherited (its path is `socket`)."""
    api_key_file: str | None = None
    """File with one key a line; asked for on TCP, never on the Unix socket."""
    allow_origins: tuple[str, ...] = ()
    """Origins whose web pages may use the server, beside its own."""
    metrics_open: bool = False
    """Whether `/metrics` needs no key, as probes need none."""
    tls_cert: str | None = None
    """File with the certificate chain for TCP, PEM; None is HTTP without TLS."""
    tls_key: str | None = None
    """File with its private key."""
    idle_exit: float | None = None
    """Seconds without a request after which the server ends; None is never."""
    max_queue: int = 256
    """Requests that may wait for a slot; more get 429."""
    request_timeout: float | None = None
    """Most seconds that a request may take, also where it asks for more; None is no limit."""
    heartbeat: float = 15.0
    """Seconds of silence in a stream after which a comment is sent."""
    resume_grace: float = 30.0
    """Seconds that a resumable answer goes on, and is kept, after its connection broke."""
    drain: float = 30.0
    """Seconds that running answers may take after SIGTERM."""
    stall: float = 600.0
    """Seconds that one step of the engine may take before `/livez` says that it hangs."""
    log_format: LogFormat = "text"
    log: str | None = None
    """The file that holds this process's standard error, for `status` to name."""
