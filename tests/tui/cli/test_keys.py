"""An API key is in the request and nowhere else: not in what commands write, nor in the log, nor on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.scripted_server import ScriptedServer
from tests.tui.cli.conftest import run

SECRET = "sesame-open-4711"
DEAD = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CHAT_API_KEY", SECRET)
    monkeypatch.setenv("LLAMA_CHAT_DEBUG", "1")


def on_disk(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask", "--url", DEAD, "hi"],
        ["status", "--url", DEAD],
        ["models", "--url", DEAD],
        ["config"],
        ["config", "--json"],
    ],
    ids=" ".join,
)
def test_where_nobody_answers(arguments: list[str], isolated_home: Path) -> None:
    outcome = run(*arguments)
    assert SECRET not in outcome.out.decode() + outcome.err
    assert on_disk(isolated_home) == []


@pytest.mark.parametrize("how", [{"status": 401}, {"status": 500}, {"breaks": True}], ids=str)
def test_where_the_server_refuses(backend: ScriptedServer, how: dict[str, int], isolated_home: Path) -> None:
    backend.enqueue("a", error={"message": "no", "code": "x"}, **how)
    outcome = run("ask", "hi")
    assert backend.keys == [f"Bearer {SECRET}"]
    assert outcome.code != 0
    assert SECRET not in outcome.out.decode() + outcome.err
    assert on_disk(isolated_home) == []


@pytest.mark.parametrize("url", [f"https://me:{SECRET}@host", f"https://{SECRET}@host:port", f"me:{SECRET}@host"])
@pytest.mark.parametrize("arguments", [["attach"], ["ask", "--url"], ["status", "--target"]], ids=" ".join)
def test_a_url_with_a_password(url: str, arguments: list[str]) -> None:
    outcome = run(*arguments, url, stdin=b"hi")
    assert outcome.code == 2
    assert SECRET not in outcome.out.decode() + outcome.err


def test_settings_are_shown_without_the_password_of_a_url(isolated_home: Path) -> None:
    folder = isolated_home / "config" / "llama-chat"
    folder.mkdir()
    (folder / "config.toml").write_text(
        f'url = "https://me:{SECRET}@host/v1"\n[targets.work]\nurl = "https://me:{SECRET}@work"\n'
    )
    for arguments in (["config"], ["config", "--json"]):
        out = run(*arguments).out.decode()
        assert "https://…@host/v1" in out
        assert "https://…@work" in out
        assert SECRET not in out
