"""Where the API key of a target comes from."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from llama_chat.backends.key_lookup import find_key, read_key
from llama_chat.backends.targets import KeySource, UrlTarget
from llama_chat.errors import ConfigError

TARGET = UrlTarget("https://h", "h")


def test_the_targets_own_key_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").write_text("own\n")
    monkeypatch.setenv("LLAMA_CHAT_API_KEY", "general")
    monkeypatch.setenv("WORK_KEY", "work")
    assert find_key(UrlTarget("https://h", "h", KeySource(file=str(tmp_path / "own"))), None) == "own"
    assert find_key(UrlTarget("https://h", "h", KeySource(variable="WORK_KEY")), None) == "work"
    assert find_key(TARGET, str(tmp_path / "own")) == "general"
    monkeypatch.delenv("LLAMA_CHAT_API_KEY")
    assert find_key(TARGET, str(tmp_path / "own")) == "own"
    assert find_key(TARGET, None) is None


def test_a_variable_that_is_named_must_be_set() -> None:
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        find_key(UrlTarget("https://h", "h", KeySource(variable="NO_SUCH_KEY")), None)


@pytest.mark.parametrize("name", ["work", "https://h"])
def test_the_keyring_is_asked_where_it_is_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keyring, errors = ModuleType("keyring"), ModuleType("keyring.errors")
    keys = {("llama-chat", name): "from the keyring"}
    keyring.get_password = lambda service, user: keys.get((service, user))  # type: ignore[attr-defined]
    errors.KeyringError = RuntimeError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    monkeypatch.setitem(sys.modules, "keyring.errors", errors)
    assert find_key(UrlTarget("https://h", "work"), None) == "from the keyring"


def test_a_keyring_that_is_locked_has_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(_: str, __: str) -> str:
        raise RuntimeError

    keyring, errors = ModuleType("keyring"), ModuleType("keyring.errors")
    keyring.get_password = locked  # type: ignore[attr-defined]
    errors.KeyringError = RuntimeError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    monkeypatch.setitem(sys.modules, "keyring.errors", errors)
    assert find_key(TARGET, None) is None


def test_the_first_key_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# team\n\none name=alice weight=2\ntwo\n")
    assert read_key(str(file)) == "one"


@pytest.mark.parametrize("text", ["", "\n", "# only\n", "schlüssel\n"])
def test_a_file_without_a_key(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ConfigError, match="key"):
        read_key(str(tmp_path / "keys"))


def test_a_missing_file_of_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_key(str(tmp_path / "keys"))
