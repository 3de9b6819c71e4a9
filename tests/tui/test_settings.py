"""The declaration of the settings: complete, and the same wherever it is read."""

from __future__ import annotations

import importlib

import click
import pytest

from llama_backend.server_config import ServerConfig
from llama_backend.wire.ipc import EngineConfig
from llama_chat.cli.main import COMMANDS
from llama_chat.settings import SETTINGS, Settings, default_text, flags_of, in_section, metavar_of

NOT_FOR_PERSONS = {"max_completion_tokens"}


def options() -> dict[tuple[str, str], click.Option]:
    """Every option by its command and the name of its parameter."""
    commands = {name: importlib.import_module(f"llama_chat.cli.commands.{name}").command for name in COMMANDS}
    return {
        (name, param.name): param
        for name, command in commands.items()
        for param in command.params
        if isinstance(param, click.Option) and param.name
    }


def test_every_field_is_declared() -> None:
    assert set(SETTINGS) == set(Settings.__struct_fields__) - NOT_FOR_PERSONS


@pytest.mark.parametrize("name", SETTINGS)
def test_a_meaning_is_one_sentence_without_its_full_stop(name: str) -> None:
    text = SETTINGS[name].help
    assert text[0].isupper()
    assert not text.endswith(".")


def test_every_setting_with_an_option_has_it_in_some_command() -> None:
    found = {param for _, param in options()}
    assert {name for name in SETTINGS if flags_of(name)} <= found


def test_options_are_spelt_and_explained_as_declared() -> None:
    for (command, name), option in options().items():
        if name in SETTINGS:
            spelt = {flag.strip() for flags in flags_of(name) for flag in flags.split("/")} - {""}
            assert {*option.opts, *option.secondary_opts} == spelt, (command, name)
            assert (option.help or "").startswith(f"{SETTINGS[name].help}."), (command, name)
            assert default_text(name) in (option.help or "") or SETTINGS[name].is_switch, (command, name)


def test_serve_has_the_option_of_every_setting_of_a_backend() -> None:
    found = {param for command, param in options() if command == "serve"}
    assert {*in_section("serve", "compute")} <= found


def test_defaults_are_those_of_the_backend() -> None:
    engine = EngineConfig(path="")
    server, settings = ServerConfig(model="", engine=engine), Settings()
    for name in ("port", "resume_grace", "drain", "log_format", "metrics_open"):
        assert getattr(settings, name) == getattr(server, name), name
    assert (settings.kv_type, settings.kv_sharing) == (engine.kv_type, engine.kv_sharing)
    assert (settings.kv_cache_size << 20, settings.kv_cache_ram << 20) == (engine.kv_disk, engine.kv_ram)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "8080"),
        ("resume_grace", "30"),
        ("stream", "true"),
        ("kv_type", "f16"),
        ("ctx_size", "the model's own, at most 4096"),
        ("system", ""),
    ],
)
def test_defaults_in_help(name: str, text: str) -> None:
    assert default_text(name) == text


def test_choices_stand_in_place_of_the_value() -> None:
    assert metavar_of("kv_layout") == "auto|unified|split"
    assert metavar_of("system") == "TEXT"


def test_a_project_can_set_nothing_but_model_prompt_and_sampling() -> None:
    allowed = {name for name, setting in SETTINGS.items() if setting.in_project}
    assert allowed == {
        "model",
        "system",
        "stream",
        *(name for name in SETTINGS if SETTINGS[name].section == "sampling"),
    }
