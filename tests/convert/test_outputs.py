"""Files are written to the right folder, under a safe name, and completely or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llama_convert.convert import ConvertOptions, convert
from llama_convert.errors import CorruptSource, DiskFull, OutputExists, UsageError
from llama_convert.hub.catalogue import parse_target
from llama_convert.llama_checkpoint import SourceOptions
from llama_convert.progress import Silent
from llama_convert.pull import pull
from llama_convert.quant.file_types import QUANTIZATIONS
from llama_convert.untrusted import MOST_CONFIG
from tests.support.convert.folders import file_names
from tests.support.convert.layouts import TinyLlama, random_weights, write_hf_folder
from tests.support.convert.local_hub import LocalHub, pull_options

MODEL = TinyLlama(layers=1, inner=512)


@pytest.fixture
def folder(tmp_path: Path, spm_model: Path) -> Path:
    made = write_hf_folder(tmp_path / "tiny", MODEL, random_weights(MODEL, dtype=np.float16))
    shutil.copy(spm_model, made)
    return made


@pytest.fixture
def options(tmp_path: Path) -> ConvertOptions:
    return ConvertOptions(tmp_path / "out" / "models", [QUANTIZATIONS["Q8_0"]], threads=1)


@pytest.fixture
def hub(hub: LocalHub, folder: Path) -> LocalHub:
    hub.repositories["someone/tiny"] = {path.name: path.read_bytes() for path in folder.iterdir()}
    return hub


NAMES = ["../x", "..", ".", "/tmp/x", "a/b", "a\\b", "-x", ".x", "x\0", "x\n", "x\x1b[31m", "\u202ex", "x" * 201, " x"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_elsewhere_is_refused(folder: Path, options: ConvertOptions, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a model"):
        convert(folder, replace(options, source=SourceOptions(name=name)), Silent())
    assert not options.out.parent.exists()


def test_the_longest_name_fits(folder: Path, options: ConvertOptions) -> None:
    name = "ü" * 100
    product = convert(folder, replace(options, source=SourceOptions(name=name)), Silent()).products[0]
    assert product.path.name == f"{name}-Q8_0.gguf"


@pytest.mark.parametrize("name", ["-x", ".x"])
def test_a_folder_whose_name_no_model_can_have_needs_another(folder: Path, options: ConvertOptions, name: str) -> None:
    moved = folder.rename(folder.with_name(name))
    with pytest.raises(UsageError, match=r"--name"):
        convert(moved, options, Silent())
    assert convert(moved, replace(options, source=SourceOptions(name="good")), Silent()).products


def test_a_link_at_the_place_of_a_model_is_not_followed(folder: Path, options: ConvertOptions, tmp_path: Path) -> None:
    options.out.mkdir(parents=True)
    for ending in ("gguf", "gguf.part", "json.part"):
        (options.out / f"tiny-Q8_0.{ending}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputExists, match=r"tiny-Q8_0\.gguf: exists already"):
        convert(folder, options, Silent())
    product = convert(folder, replace(options, force=True), Silent()).products[0]
    assert product.path.is_file()
    assert not product.path.is_symlink()
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_at_the_place_of_a_model_is_refused_at_once(folder: Path, options: ConvertOptions) -> None:
    (options.out / "tiny-Q8_0.gguf").mkdir(parents=True)
    with pytest.raises(OutputExists, match="is a folder"):
        convert(folder, replace(options, force=True), Silent())
    assert not (options.out / ".convert").exists()


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("make", [Path.mkdir, make_pipe, lambda path: path.symlink_to("/dev/zero")])
def test_a_licence_that_is_no_file_is_left_out(
    folder: Path, options: ConvertOptions, make: Callable[[Path], object]
) -> None:
    make(folder / "LICENSES")
    (folder / "LICENSE").write_text("the licence")
    convert(folder, options, Silent())
    assert [name for name in file_names(options.out) if "LICENSE" in name] == ["tiny.LICENSE"]


def test_a_licence_as_long_as_a_disk_is_refused(folder: Path, options: ConvertOptions) -> None:
    (folder / "LICENSE").write_bytes(bytes(MOST_CONFIG + 1))
    with pytest.raises(CorruptSource, match=r"LICENSE: has 8388609 bytes"):
        convert(folder, options, Silent())


LIMITED = """
import resource, sys
from pathlib import Path
from llama_convert.convert import ConvertOptions, convert
from llama_convert.errors import ConvertError
from llama_convert.hub.catalogue import parse_target
from llama_convert.hub.download import Downloader
from llama_convert.progress import Silent
from llama_convert.pull import PullOptions, pull
from llama_convert.quant.file_types import QUANTIZATIONS
what, source, out, limit = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
options = ConvertOptions(Path(out), [QUANTIZATIONS["Q8_0"]], threads=1)
try:
    if what == "convert":
        convert(Path(source), options, Silent())
    else:
        chosen = PullOptions(options, endpoint=source, downloader=Downloader({}, lambda seconds: None))
        pull(parse_target("someone/tiny"), chosen, Silent())
except ConvertError as error:
    print(type(error).__name__, error)
"""


def limited(what: str, source: object, out: Path, limit: int) -> str:
    command = [sys.executable, "-c", LIMITED, what, str(source), str(out), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("limit", [0, 10_000, 300_000])
def test_a_limit_on_the_size_of_files_is_reported_and_leaves_no_half_model(
    folder: Path, options: ConvertOptions, limit: int
) -> None:
    """The worker's file is the last one: it is a quarter shorter than the one that it is made of."""
    said = limited("convert", folder, options.out, limit)
    assert said.startswith("ConvertError")
    assert "File too large" in said or "the folder for temporary files: No usable temporary directory" in said
    assert not [name for name in file_names(options.out.parent) if ".gguf" in name]
    assert convert(folder, options, Silent()).products[0].path.is_file()


def test_a_download_goes_on_after_a_limit_on_the_size_of_files(hub: LocalHub, options: ConvertOptions) -> None:
    name = "tiny.Q4_K_M.gguf"
    hub.repositories["someone/tiny"] = {name: b"GGUF, but no model" * 10_000}
    assert "File too large" in limited("pull", hub.endpoint, options.out, 100_000)
    assert not list(options.out.glob("*.gguf"))
    chosen = pull_options(hub, options)
    with pytest.raises(CorruptSource, match=name):
        pull(parse_target("someone/tiny"), chosen, Silent())
    assert [headers["range"] for headers in hub.stored_requests(name)] == ["bytes=0-", "bytes=100000-"]


def test_a_disk_that_fills_up_during_a_download_is_named_and_the_rest_comes_later(
    hub: LocalHub, options: ConvertOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(FileIO):
        def write(self, data: Any, /) -> int:
            raise OSError(28, "No space left on device")

    chosen = pull_options(hub, options)
    with monkeypatch.context() as patch:
        patch.setattr("llama_convert.hub.download.FileIO", Full)
        with pytest.raises(DiskFull, match="the disk is full"):
            pull(parse_target("someone/tiny"), chosen, Silent())
    assert pull(parse_target("someone/tiny:Q8_0"), chosen, Silent()).products[0].path.is_file()


@pytest.mark.parametrize("what", ["llama_convert.files.sync", "llama_convert.record.write_json"])
def test_a_disk_that_fills_up_at_the_end_leaves_no_model(
    folder: Path, options: ConvertOptions, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(what, full)
    with pytest.raises(DiskFull):
        convert(folder, options, Silent())
    assert not list(options.out.glob("*.gguf*"))
