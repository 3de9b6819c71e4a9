"""Which configuration the settings give a background backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llama_backend.errors import ModelNotFound
from llama_backend.models.installed import InstalledModel
from llama_chat.backends.launching import server_config
from llama_chat.errors import ConfigError
from llama_chat.paths import user_paths
from llama_chat.settings import Settings


def test_where_states_are_kept() -> None:
    model, paths = InstalledModel("name", Path("/m.gguf")), user_paths()
    usual = server_config(Settings(), paths, model).engine
    assert (usual.kv_folder, usual.kv_disk, usual.kv_ram) == (str(paths.kv_states), 2 << 30, 256 << 20)
    settings = Settings(kv_cache_dir="/x", kv_cache_size=0, kv_cache_ram=1)
    other = server_config(settings, paths, model).engine
    assert (other.kv_folder, other.kv_disk, other.kv_ram) == ("/x", 0, 1 << 20)


@pytest.mark.parametrize(
    ("settings", "on"), [({}, True), ({"speculation": "auto"}, True), ({"speculation": "off"}, False)]
)
def test_whether_it_speculates(settings: dict[str, Any], on: bool) -> None:
    config = server_config(Settings(**settings), user_paths(), InstalledModel("name", Path("/m.gguf")))
    assert config.engine.speculation is on


def test_a_draft_model_has_a_name_or_a_path(tmp_path: Path) -> None:
    paths = user_paths(tmp_path)
    (tmp_path / "small.gguf").write_bytes(b"GGUF" + bytes(100))
    for name in ("small", str(tmp_path / "small.gguf")):
        config = server_config(Settings(draft_model=name), paths, InstalledModel("name", Path("/m.gguf")))
        assert config.engine.draft_model == str(tmp_path / "small.gguf")
    with pytest.raises(ModelNotFound):
        server_config(Settings(draft_model="none"), paths, InstalledModel("name", Path("/m.gguf")))


def test_the_settings_describe_the_background_backend() -> None:
    settings = Settings(ctx_size=512, parallel=2, threads=1, gpu_layers=-1, idle_exit=5)
    config = server_config(settings, user_paths(), InstalledModel("name", Path("/m.gguf")))
    engine = config.engine
    assert (config.model, engine.path, config.idle_exit, config.host) == ("name", "/m.gguf", 5, None)
    assert (engine.context, engine.slots, engine.threads, engine.gpu_layers) == (512, 2, 1, -1)


def test_the_settings_of_memory_and_gpus() -> None:
    model = InstalledModel("name", Path("/m.gguf"))
    usual = server_config(Settings(), user_paths(), model).engine
    assert (usual.gpu_layers, usual.tensor_split, usual.kv_type, usual.kv_unified) == (None, None, "f16", None)
    assert (usual.flash_attention, usual.batch, usual.ubatch) == (None, None, None)
    settings = Settings(
        tensor_split="3,1.5", kv_type="q8_0", kv_layout="split", flash_attention="on", batch_size=64, ubatch_size=32
    )
    engine = server_config(settings, user_paths(), model).engine
    assert (engine.tensor_split, engine.kv_type, engine.kv_unified) == ([3.0, 1.5], "q8_0", False)
    assert (engine.flash_attention, engine.batch, engine.ubatch) == (True, 64, 32)
    assert server_config(Settings(main_gpu=1, kv_layout="unified"), user_paths(), model).engine.kv_unified


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (Settings(kv_type="q4_0", flash_attention="off"), "needs flash attention"),
        (Settings(main_gpu=0, tensor_split="1,1"), "give either"),
        (Settings(tensor_split="0,0.0"), "above 0"),
    ],
)
def test_settings_that_cannot_go_together(settings: Settings, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        server_config(settings, user_paths(), InstalledModel("name", Path("/m.gguf")))


@pytest.mark.parametrize(("setting", "seconds"), [(None, 600.0), (0.0, None), (5.0, 5.0)])
def test_when_a_background_backend_ends(setting: float | None, seconds: float | None) -> None:
    config = server_config(Settings(idle_exit=setting), user_paths(), InstalledModel("name", Path("/m.gguf")))
    assert config.idle_exit == seconds
