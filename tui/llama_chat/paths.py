"""Where things are: settings, history, models, logs and the backend's socket."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from llama_backend.host.runtime_folder import SOCKET_NAME, make_folder
from llama_chat.errors import ChatError

_APP = "llama-chat"
_LONGEST_SOCKET = 100
"""Bytes that every system allows for the path of a Unix socket; Linux allows 107."""


@dataclass(frozen=True)
class Paths:
    """The folders in use; each has an environment variable, such as `LLAMA_CHAT_DATA_DIR` for `data`."""

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
        """The log of the background backend."""
        return self.state / "backend.log"

    @property
    def kv_states(self) -> Path:
        """The folder where the local backend keeps KV states, so that conversations are not computed again."""
        return self.cache / "kv-states"

    @property
    def socket(self) -> Path:
        """The socket where the local backend listens."""
        return self.runtime / SOCKET_NAME


def user_paths(models: Path | None = None) -> Paths:
    """The paths of this user and environment, none of which is made; `models` is the folder that a setting names."""
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

    Raises ChatError where it cannot be made, and UntrustedSocket where other users could put a socket there.
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
    """The folder of the user's session where the system has one, or else one in the temporary folder.

    A folder of another user, as under `sudo -E`, is not used. In the temporary folder ours lies at the top, where the
    sticky bit keeps other users from replacing it.
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
