"""Settings: the order of their sources, and the errors for wrong ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from llama_chat import config
from llama_chat.config import Config
from llama_chat.errors import ConfigError
from llama_chat.settings import Settings


class Places:
    """A user's file and a project's folder."""

    def __init__(self, root: Path) -> None:
        self.user_file = root / "config" / "config.toml"
        self.user_file.parent.mkdir()
        self.project = root / "project"
        self.project.mkdir()

    def user(self, text: str) -> None:
        self.user_file.write_text(text)

    def of_project(self, text: str) -> Path:
        file = self.project / ".llama-chat.toml"
        file.write_text(text)
        return file

    def load(self, **options: Any) -> Config:
        return config.load(options, user_file=self.user_file, folder=self.project)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


def test_defaults(places: Places) -> None:
    found = places.load()
    assert found.settings == Settings()
    assert set(found.sources.values()) == {"default"}
    assert found.settings.sampling().temperature is None


def test_the_order_of_sources(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["top_k", "seed", "system", "model"]
    places.user('top_k = 1\nseed = 1\nsystem = "user"\nmodel = "user"\nparallel = 2')
    project = places.of_project('top_k = 2\nseed = 2\nsystem = "project"')
    monkeypatch.setenv("LLAMA_CHAT_TOP_K", "3")
    monkeypatch.setenv("LLAMA_CHAT_SEED", "3")
    found = places.load(top_k=4, seed=None)
    assert [getattr(found.settings, name) for name in names] == [4, 3, "project", "user"]
    assert [found.sources[name] for name in names] == [
        "option",
        "LLAMA_CHAT_SEED",
        str(project),
        str(places.user_file),
    ]
    assert found.settings.parallel == 2


def test_the_nearest_project_file_counts(places: Places) -> None:
    places.of_project("top_k = 1\nseed = 1")
    inner = places.project / "a" / "b"
    inner.mkdir(parents=True)
    (inner / ".llama-chat.toml").write_text("top_k = 2")
    found = config.load({}, user_file=places.user_file, folder=inner)
    assert (found.settings.top_k, found.settings.seed) == (2, None)
    assert config.load({}, user_file=places.user_file, folder=inner.parent).settings.top_k == 1


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("model", "llama2:7b-chat", "llama2:7b-chat"),
        ("temperature", "0.5", 0.5),
        ("temperature", "1", 1.0),
        ("top_k", "40", 40),
        ("stream", "false", False),
        ("stream", "0", False),
        ("log", "true", True),
        ("stop", "[END]", "[END]"),
        ("logit_bias", '{"2": -100}', {"2": -100.0}),
        ("idle_exit", "0", 0.0),
        ("seed", "-1", -1),
    ],
)
def test_variables(places: Places, monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object) -> None:
    monkeypatch.setenv(f"LLAMA_CHAT_{name.upper()}", text)
    assert getattr(places.load().settings, name) == value


def test_an_empty_variable_is_none(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CHAT_MODEL", "")
    monkeypatch.setenv("LLAMA_CHAT_TOP_K", "")
    assert places.load().settings == Settings()


def test_the_variable_of_a_kubernetes_service_is_passed_over(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CHAT_PORT", "tcp://10.0.0.7:8080")
    assert places.load().sources["port"] == "default"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("TOP_K", "many", "LLAMA_CHAT_TOP_K: expected int, got 'many'"),
        ("TEMPERATURE", "nan", "LLAMA_CHAT_TEMPERATURE: expected float >= 0.0, got 'nan'"),
        ("STREAM", "perhaps", "LLAMA_CHAT_STREAM: expected bool, got 'perhaps'"),
        ("PORT", "70000", "LLAMA_CHAT_PORT: expected int <= 65535, got '70000'"),
        ("LOGIT_BIAS", "2=-100", "LLAMA_CHAT_LOGIT_BIAS: expected object, got '2=-100'"),
    ],
)
def test_a_wrong_variable_is_named(
    places: Places, monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: str
) -> None:
    monkeypatch.setenv(f"LLAMA_CHAT_{name}", text)
    with pytest.raises(ConfigError) as caught:
        places.load()
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("top_k = 'many'", ["top_k: expected int, got 'many'"]),
        ("top_k = true", ["top_k: expected int, got True"]),
        ("temperature = nan", ["temperature: expected float >= 0.0, got nan"]),
        ("temprature = 1", ["'temprature' is not a setting", "allowed are .*temperature.*url"]),
        ("max_completion_tokens = 1", ["'max_completion_tokens' is not a setting"]),
        ("top_k = \n", ["Invalid value", "line 1"]),
        ("top_k = 1\ntop_k = 2\n", ["overwrite", "line 2"]),
        ("[server]\nport = 1", ["'server' is not a setting"]),
    ],
)
def test_a_wrong_file_is_named(places: Places, text: str, patterns: list[str]) -> None:
    places.user(text)
    for pattern in patterns:
        with pytest.raises(ConfigError, match=pattern) as caught:
            places.load()
        assert str(caught.value).startswith(f"{places.user_file}: ")


def test_a_file_that_is_no_text(places: Places) -> None:
    places.user_file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"config\.toml: .*utf-8"):
        places.load()


def test_a_file_that_is_a_folder(places: Places) -> None:
    places.user_file.mkdir()
    with pytest.raises(ConfigError, match=r"config\.toml: Is a directory"):
        places.load()


@pytest.mark.parametrize(
    "text",
    [
        'url = "http://evil.example"',
        'api_key_file = "keys"',
        'models_dir = "models"',
        'socket = "/tmp/x.sock"',
        'host = "0.0.0.0"',
        "port = 1",
        "log = true",
        "ctx_size = 1000000",
        "parallel = 256",
        "idle_exit = 0",
        'model = "./evil.gguf"',
        'model = "/tmp/evil"',
        'model = "evil.GGUF"',
    ],
)
def test_a_project_can_do_no_harm(places: Places, text: str) -> None:
    file = places.of_project(text)
    with pytest.raises(ConfigError, match="may") as caught:
        places.load()
    assert str(caught.value).startswith(f"{file}: ")
    places.user(text)
    file.unlink()
    places.load()


def test_a_project_says_how_answers_read(places: Places) -> None:
    places.of_project('model = "llama2:7b-chat"\nsystem = "Be brief."\ntemperature = 0\nstop = ["END"]\nstream = false')
    settings = places.load().settings
    assert (settings.model, settings.system, settings.temperature) == ("llama2:7b-chat", "Be brief.", 0.0)
    assert (settings.stop, settings.stream) == (["END"], False)


def test_the_project_file_of_another_user_is_passed_over(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    places.of_project("top_k = 1")
    os.chown(places.project / ".llama-chat.toml", 12345, -1) if os.geteuid() == 0 else pytest.skip("needs root")
    assert places.load().settings.top_k is None


@pytest.mark.parametrize("target", ["/dev/zero", "/nowhere"])
def test_a_project_file_that_is_no_file_is_passed_over(places: Places, target: str) -> None:
    (places.project / ".llama-chat.toml").symlink_to(target)
    assert places.load().settings == Settings()


def test_a_huge_file_is_not_read(places: Places) -> None:
    places.user("#" * (1 << 21))
    with pytest.raises(ConfigError, match="at most 1 MiB"):
        places.load()
