"""Files that commands write can be read only by this user, whatever the umask."""

from __future__ import annotations

import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.convert.conftest import spm_model
from tests.support.scripted_server import ScriptedServer
from tests.tui.cli.conftest import PROGRAM
from tests.tui.cli.test_weights import folder as weights

__all__ = ["spm_model", "weights"]


@pytest.fixture(params=[0o000, 0o077], ids=["umask 000", "umask 077"])
def umask(request: pytest.FixtureRequest) -> int:
    mask: int = request.param
    return mask


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home in which none of our folders is there yet, nor what they are in; also where a session's folder is."""
    for kind in ("CONFIG", "DATA", "STATE", "CACHE"):
        monkeypatch.delenv(f"XDG_{kind}_HOME")
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("LLAMA_CHAT_RUNTIME_DIR", str(home / "session" / "run"))
    monkeypatch.setenv("LLAMA_CHAT_THREADS", "1")
    yield home
    subprocess.run([*PROGRAM, "stop"], check=True)


def call(umask: int, *arguments: str) -> bytes:
    done = subprocess.run([*PROGRAM, *arguments], stdin=subprocess.DEVNULL, capture_output=True, umask=umask)
    assert done.returncode == 0, done.stderr
    return done.stdout


def open_to_others(home: Path) -> dict[str, str]:
    """What others could enter, read or write below a home, with its mode."""
    found = [path for path in home.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o077]
    return {str(path.relative_to(home)): stat.filemode(path.stat().st_mode) for path in found}


def names(home: Path) -> set[str]:
    return {path.name for path in home.rglob("*")}


def test_of_a_conversation(home: Path, umask: int, demo_model: Path) -> None:
    models = home / ".local" / "share" / "llama-chat" / "models"
    assert call(umask, "ask", "--max-tokens", "4", "Say hi. " * 60)
    assert {"history.db", "backend.log", "backend.sock", "backend.lock"} <= names(home)
    assert not models.exists()
    assert open_to_others(home) == {}
    call(umask, "history", "list")
    call(umask, "status")
    call(umask, "stop")
    assert any(name.endswith(".kvstate") for name in names(home))
    assert open_to_others(home) == {}
    call(umask, "cache", "clear")
    assert open_to_others(home) == {}


def test_of_a_conversation_elsewhere(home: Path, umask: int) -> None:
    with ScriptedServer() as backend:
        call(umask, "ask", "--url", backend.url, "Say hi.")
        assert backend.requests
    assert "history.db" in names(home)
    assert open_to_others(home) == {}


def test_of_a_conversion(home: Path, umask: int, weights: Path) -> None:
    shutil.move(weights, home / "tiny")
    (home / "tiny").chmod(0o700)
    for path in (home / "tiny").iterdir():
        path.chmod(0o600)
    call(umask, "convert", str(home / "tiny"), "--quant", "q8_0")
    assert {"tiny-Q8_0.gguf", "tiny-Q8_0.json", "tiny.LICENSE"} <= names(home)
    assert open_to_others(home) == {}
