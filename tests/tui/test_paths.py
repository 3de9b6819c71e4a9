"""Where things are, and the permissions of the folders."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from llama_backend.errors import UntrustedSocket
from llama_chat.errors import ChatError
from llama_chat.paths import make_runtime, user_paths

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def test_they_follow_the_system(isolated_home: Path) -> None:
    paths = user_paths()
    assert paths.config_file == isolated_home / "config" / "llama-chat" / "config.toml"
    assert paths.history == isolated_home / "data" / "llama-chat" / "history.db"
    assert paths.models == isolated_home / "data" / "llama-chat" / "models"
    assert paths.log == isolated_home / "state" / "llama-chat" / "backend.log"
    assert paths.kv_states == isolated_home / "cache" / "llama-chat" / "kv-states"
    assert paths.socket == isolated_home / "runtime" / "llama-chat" / "backend.sock"
    assert not paths.data.exists()


def test_variables_set_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in ("CONFIG", "DATA", "STATE", "RUNTIME"):
        monkeypatch.setenv(f"LLAMA_CHAT_{kind}_DIR", kind.lower())
    paths = user_paths()
    assert (paths.config, paths.data, paths.state) == (tmp_path / "config", tmp_path / "data", tmp_path / "state")
    assert (paths.runtime, paths.models) == (tmp_path / "runtime", tmp_path / "data" / "models")
    assert user_paths(models=tmp_path / "weights").models == tmp_path / "weights"


def test_without_a_session_folder_the_temporary_one_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("os.geteuid", lambda: 4242)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert user_paths().runtime == tmp_path / "llama-chat-4242"


def test_the_session_folder_of_another_user_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 4242)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert user_paths().runtime == tmp_path / "llama-chat-4242"


def test_the_folder_of_the_socket_is_for_its_owner_alone(tmp_path: Path) -> None:
    make_runtime(tmp_path / "a" / "run")
    make_runtime(tmp_path / "a" / "run")
    assert stat.S_IMODE((tmp_path / "a" / "run").stat().st_mode) == 0o700


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o750)
    with pytest.raises(UntrustedSocket, match="chmod 700"):
        make_runtime(tmp_path / "run")


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    owner, other = os.geteuid(), os.geteuid() + 1
    monkeypatch.setattr("os.geteuid", lambda: other)
    with pytest.raises(UntrustedSocket, match=f"not a folder of this user: it belongs to user .*{owner}"):
        make_runtime(tmp_path / "run")


@pytest.mark.parametrize("target", ["real", "nowhere"])
def test_a_link_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "run").symlink_to(target)
    with pytest.raises((ChatError, UntrustedSocket), match=r"run"):
        make_runtime(tmp_path / "run")


def test_a_file_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(UntrustedSocket, match=r"run is a link or a file, not a folder of this user; set LLAMA_CHAT_"):
        make_runtime(tmp_path / "run")


@needs_root
def test_a_folder_that_another_user_made_first_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    os.chown(tmp_path / "run", 12345, 12345)
    with pytest.raises(UntrustedSocket, match=r"run is not a folder of this user: it belongs to user 12345; set LLAMA"):
        make_runtime(tmp_path / "run")


@needs_root
def test_a_link_of_another_user_on_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    make_runtime(tmp_path / "link" / "run")
    os.chown(tmp_path / "link", 12345, 12345, follow_symlinks=False)
    with pytest.raises(UntrustedSocket, match="link is a link of user 12345"):
        make_runtime(tmp_path / "link" / "run")


@needs_root
def test_a_folder_that_others_could_replace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open" / "between").mkdir(parents=True)
    (tmp_path / "open").chmod(0o777)
    make_runtime(tmp_path / "open" / "between" / "run")
    os.chown(tmp_path / "open", 12345, 12345)
    with pytest.raises(UntrustedSocket, match=r"other users may write to .*/open, above"):
        make_runtime(tmp_path / "open" / "between" / "run")
    (tmp_path / "open").chmod(0o1777)
    make_runtime(tmp_path / "open" / "between" / "run")


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_whatever_the_umask_nobody_else_may_enter(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        make_runtime(tmp_path / "a" / "b" / "run")
    finally:
        os.umask(before)
    for folder in (tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "run"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_path_that_is_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    with pytest.raises(ChatError, match="LLAMA_CHAT_RUNTIME_DIR"):
        make_runtime(tmp_path / ("x" * 100))
