"""Where things are: settings, history, models, logs and the backend's socket."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from llama_backend.host.runtime_folder import SOCKET_NAME, make_folder
from llama_chat.errors import ChatError

_APP = "llama-chat"
_LONGEST_SOCKET = 100
"""Bytes of a Unix socket's path that every system takes; Linux itself takes 107."""


@dataclass(frozen=True)
class Paths:
    """The folders in use; each can be set with a variable, such as `LLAMA_CHAT_DATA_DIR` for `data`."""

    config: Path
    data: Path
    state: Path
    runtime: Path
    models: Path
    cache: Path

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def history(self) -> Path:
        return self.data / "history.db"

    @property
    def log(self) -> Path:
        """What the background backend writes."""
        return self.state / "backend.log"

    @property
    def kv_states(self) -> Path:
        """Where the local backend keeps KV states, so that conversations need not be computed again."""
        return self.cache / "kv-states"

    @property
    def socket(self) -> Path:
        """Where the local backend listens."""
        return self.runtime / SOCKET_NAME


def user_paths(models: Path | None = None) -> Paths:
    """The paths of this user and environment; `models` stands for a folder from the settings. Makes nothing."""
    data = _folder("LLAMA_CHAT_DATA_DIR") or _platform_folder("data")
    return Paths(
        config=_folder("LLAMA_CHAT_CONFIG_DIR") or _platform_folder("config"),
        data=data,
        state=_folder("LLAMA_CHAT_STATE_DIR") or _platform_folder("state"),
        runtime=_folder("LLAMA_CHAT_RUNTIME_DIR") or _runtime_folder(),
        models=models or data / "models",
        cache=_folder("LLAMA_CHAT_CACHE_DIR") or _platform_folder("cache"),
    )


def make_runtime(folder: Path) -> None:
    """Makes the folder of the socket, for this user alone.

    Raises ChatError where that cannot be, and UntrustedSocket where others could stand in for the backend there.
    """
    if len(os.fsencode(folder / SOCKET_NAME)) > _LONGEST_SOCKET:
        raise ChatError(f"the path of {folder} is too long for a socket; set LLAMA_CHAT_RUNTIME_DIR to a shorter one")
    try:
        make_folder(folder)
    except OSError as error:
        raise ChatError(f"the folder {folder} cannot be made: {error.strerror}") from error


def _folder(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser().absolute() if value else None


def _platform_folder(kind: str) -> Path:
    import platformdirs

    folders = platformdirs.PlatformDirs(_APP, appauthor=False)
    return Path(getattr(folders, f"user_{kind}_dir"))


def _runtime_folder() -> Path:
    """The per-session folder where the system has one, or else one in the temporary folder.

    A base that belongs to somebody else, as under `sudo -E`, is passed over. In the temporary folder ours lies at the
    top, where the sticky bit keeps others from replacing it.
    """
    user = os.geteuid()
    for base in filter(None, [os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{user}"]):
        try:
            if Path(base).stat().st_uid == user:
                return Path(base) / _APP
        except OSError:
            continue
    import tempfile

    return Path(tempfile.gettempdir()) / f"{_APP}-{user}"
