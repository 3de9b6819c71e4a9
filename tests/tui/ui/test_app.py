"""The start of the program: which options it accepts, what it refuses, and which modules it loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llama_backend.models.installed import InstalledModel
from llama_chat.backends.local import LocalBackend
from llama_chat.backends.remote import RemoteBackend
from llama_chat.backends.tunnel import UrlRoute
from llama_chat.errors import ConfigError, UsageError
from llama_chat.history import History
from llama_chat.paths import Paths, user_paths
from llama_chat.settings import Settings
from llama_chat.ui.app import ChatApp, run_app
from llama_chat.ui.chat_options import ChatOptions
from tests.support.ui.scripted_backend import ScriptedBackend


@pytest.fixture
def paths() -> Paths:
    return user_paths()


@pytest.fixture
def apps(monkeypatch: pytest.MonkeyPatch) -> list[ChatApp]:
    """The apps that would have run."""
    found: list[ChatApp] = []
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(ChatApp, "run", lambda app: found.append(app))
    return found


def chosen_backend(settings: Settings, paths: Paths) -> LocalBackend | RemoteBackend:
    if settings.url:
        return RemoteBackend(settings, UrlRoute(settings.url, None), "host:1")
    return LocalBackend(settings, paths, InstalledModel("tiny", Path("tiny.gguf")))


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_dumb_terminal_is_refused_with_a_word(
    term: str, apps: list[ChatApp], paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    with pytest.raises(UsageError, match="llama-chat ask"):
        run_app(Settings(), chosen_backend(Settings(), paths), None)
    assert apps == []


def test_an_unknown_theme_is_refused(apps: list[ChatApp], paths: Paths) -> None:
    settings = Settings(theme="nosuch")
    with pytest.raises(ConfigError, match="nord"):
        run_app(settings, chosen_backend(settings, paths), None)


@pytest.mark.parametrize(
    ("settings", "target_name", "model"),
    [
        (Settings(), "local", "tiny"),
        (Settings(url="http://host:1/v1", model="big"), "host:1", "big"),
    ],
)
def test_settings_become_options(
    settings: Settings, target_name: str, model: str, apps: list[ChatApp], paths: Paths
) -> None:
    run_app(settings, chosen_backend(settings, paths), History(Path(":memory:")))
    [app] = apps
    assert (app.options.target_name, app.options.model) == (target_name, model)
    assert app.options.is_saved


def test_a_chat_that_is_not_kept_says_so(apps: list[ChatApp], paths: Paths) -> None:
    run_app(Settings(), chosen_backend(Settings(), paths), None)
    [app] = apps
    assert not app.options.is_saved


def test_how_answers_are_sampled_goes_along(apps: list[ChatApp], paths: Paths) -> None:
    settings = Settings(temperature=0.5, max_tokens=7, system="Be brief.", theme="nord")
    run_app(settings, chosen_backend(settings, paths), None)
    [app] = apps
    assert app.options.sampling == settings.sampling()
    assert app.options.system == "Be brief."
    assert app.theme == "nord"


def test_a_program_that_failed_ends_with_its_code(
    apps: list[ChatApp], paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChatApp, "return_code", 1)
    with pytest.raises(SystemExit, match="1"):
        run_app(Settings(), chosen_backend(Settings(), paths), None)


def test_no_color_takes_the_terminals_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = ChatApp(ScriptedBackend(), History(Path(":memory:")), ChatOptions(theme="nord"))
    assert app.theme == "ansi-dark"
    assert app.native_ansi_color


def test_only_what_the_first_paint_needs_is_loaded() -> None:
    heavy = "numpy llama_cpp httpx2 markdown_it pygments.lexers"
    program = f"import sys, llama_chat.ui.app; print([name for name in {heavy.split()} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
