"""`llama-chat serve`: which server its options describe."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llama_backend.server_config import ServerConfig
from llama_chat.cli import group
from llama_chat.cli.main import COMMANDS
from tests.support.scripted_server import ScriptedServer

Describe = Callable[..., ServerConfig]


@pytest.fixture
def describe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Describe:
    """The configuration that a command line hands to the server."""
    found: list[ServerConfig] = []

    def record(config: ServerConfig) -> int:
        found.append(config)
        return 0

    monkeypatch.setattr("llama_backend.server.main.run", record)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.chdir(tmp_path)

    def described(*args: str) -> ServerConfig:
        assert group.run(COMMANDS, ["serve", *args]) == 0
        return found[-1]

    return described


def test_by_default_it_listens_on_this_machine(describe: Describe, isolated_home: Path, demo_model: Path) -> None:
    config = describe()
    assert (config.host, config.port) == ("127.0.0.1", 8080)
    assert config.socket == str(isolated_home / "runtime" / "llama-chat" / "backend.sock")
    assert (config.model, config.engine.path) == ("smollm2:135m", str(demo_model))
    assert (config.idle_exit, config.api_key_file) == (None, None)


@pytest.mark.parametrize(
    ("args", "fields"),
    [
        (["--host", "0.0.0.0", "--port", "80"], {"host": "0.0.0.0", "port": 80}),
        (["--socket", "x.sock"], {"host": None}),
        (["--socket", "x.sock", "--port", "81"], {"host": "127.0.0.1", "port": 81}),
        (["--socket", "x.sock", "--host", "::1"], {"host": "::1", "port": 8080}),
        (["--idle-exit", "5"], {"idle_exit": 5.0}),
        (["--idle-exit", "0"], {"idle_exit": None}),
        ([], {"metrics_open": False, "request_timeout": None}),
        (["--request-timeout", "90"], {"request_timeout": 90.0, "models_max": None, "model_idle": None}),
        (["--models-max", "2", "--model-idle", "60"], {"models_max": 2, "model_idle": 60.0}),
        (["--metrics-open"], {"metrics_open": True}),
        (["--drain", "120"], {"drain": 120.0}),
        ([], {"allow_origins": ()}),
        (["--allow-origin", "https://a", "--allow-origin", "app://b"], {"allow_origins": ("https://a", "app://b")}),
    ],
)
def test_where_it_listens(describe: Describe, args: list[str], fields: dict[str, Any]) -> None:
    config = describe(*args)
    assert {name: getattr(config, name) for name in fields} == fields


def test_files_are_absolute(describe: Describe, tmp_path: Path) -> None:
    config = describe("--socket", "x.sock", "--api-key-file", "keys")
    assert (config.socket, config.api_key_file) == (str(tmp_path / "x.sock"), str(tmp_path / "keys"))


def test_how_it_computes(describe: Describe, tmp_path: Path, demo_model: Path) -> None:
    (tmp_path / "mine.gguf").symlink_to(demo_model)
    states = ("--kv-cache-dir", "kv", "--kv-cache-size", "10", "--kv-cache-ram", "0")
    options = (
        *states,
        "--ctx-size",
        "512",
        "--parallel",
        "2",
        "--threads",
        "1",
        "--gpu-layers",
        "-1",
        "--speculation",
        "off",
        "--kv-sharing",
        "all",
    )
    config = describe("--model", "./mine.gguf", *options)
    assert (config.model, config.engine.path) == ("mine", str(tmp_path / "mine.gguf"))
    engine = config.engine
    assert (engine.context, engine.slots, engine.threads, engine.gpu_layers) == (512, 2, 1, -1)
    assert (engine.kv_folder, engine.kv_disk, engine.kv_ram) == (str(tmp_path / "kv"), 10 << 20, 0)
    assert not engine.speculation
    assert engine.kv_sharing == "all"


def test_it_reads_the_environment(describe: Describe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CHAT_HOST", "127.0.0.2")
    monkeypatch.setenv("LLAMA_CHAT_CTX_SIZE", "1024")
    monkeypatch.setenv("LLAMA_CHAT_ALLOW_ORIGIN", "https://a, https://b")
    config = describe()
    assert (config.host, config.engine.context) == ("127.0.0.2", 1024)
    assert config.allow_origins == ("https://a", "https://b")


def test_it_does_not_push_another_backend_aside(
    local_backend: ScriptedServer, capfd: pytest.CaptureFixture[str]
) -> None:
    assert group.run(COMMANDS, ["serve"]) == 1
    assert "`llama-chat stop` ends it" in capfd.readouterr().err
