"""The whole way from a folder to checked files: what is made, what is reused, what is refused, what is left behind."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llama_convert.convert import ConvertOptions, convert, plan_conversion
from llama_convert.errors import (
    CheckFailed,
    ConvertError,
    CorruptSource,
    DiskFull,
    OutputExists,
    UnsupportedModel,
    UsageError,
    WorkerFailed,
)
from llama_convert.gguf.reader import read_gguf
from llama_convert.gguf.tensor_types import TensorType
from llama_convert.gguf.values import i32s, string
from llama_convert.gguf.writer import GGUFWriter, TensorInfo
from llama_convert.llama_checkpoint import SourceOptions
from llama_convert.output.verify import check_model, compare_tensors
from llama_convert.output.workspace import open_workspace
from llama_convert.progress import Silent
from llama_convert.quant.file_types import QUANTIZATIONS, parse_quantizations
from llama_convert.record import Provenance
from tests.support.convert.folders import file_names
from tests.support.convert.layouts import TinyLlama, random_weights, write_hf_folder
from tests.support.convert.recorder import Recorder

MODEL = TinyLlama(layers=2, inner=512)
Q4_K_M, Q8_0, IQ2_M = QUANTIZATIONS["Q4_K_M"], QUANTIZATIONS["Q8_0"], QUANTIZATIONS["IQ2_M"]


@pytest.fixture
def folder(tmp_path: Path, spm_model: Path) -> Path:
    made = write_hf_folder(tmp_path / "tiny", MODEL, random_weights(MODEL, dtype=np.float16))
    shutil.copy(spm_model, made)
    (made / "LICENSE.txt").write_text("the licence")
    (made / "USE_POLICY.md").write_text("the policy")
    return made


@pytest.fixture
def options(tmp_path: Path) -> ConvertOptions:
    return ConvertOptions(tmp_path / "out", [Q4_K_M, Q8_0], threads=1)


def test_quantised_files_are_made_with_their_records(folder: Path, options: ConvertOptions) -> None:
    recorder = Recorder()
    outcome = convert(folder, options, recorder, Provenance("meta/tiny", "abc123", "llama2"))
    assert [(item.path.name, item.reused) for item in outcome.products] == [
        ("tiny-Q4_K_M.gguf", False),
        ("tiny-Q8_0.gguf", False),
    ]
    models = [f"tiny-{kind}.{end}" for kind in ("Q4_K_M", "Q8_0") for end in ("gguf", "json")]
    assert file_names(options.out) == sorted([*models, "tiny.LICENSE.txt", "tiny.USE_POLICY.md"])
    record = json.loads((options.out / "tiny-Q4_K_M.json").read_text())
    assert record["source"]["commit"] == "abc123"
    assert record["license"] == "llama2"
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert record["source"]["files"]["model.safetensors"]["sha256"] == digest
    assert record["size"] == (options.out / "tiny-Q4_K_M.gguf").stat().st_size
    assert len(record["check"]["tokens"]) == 8
    assert record["versions"]["llama_cpp_python"] == "0.3.36"
    kinds = {tensor.info.kind for tensor in read_gguf(options.out / "tiny-Q4_K_M.gguf").tensors.values()}
    assert kinds == {TensorType.F32, TensorType.Q4_K, TensorType.Q6_K}
    assert recorder.finished == ["hash", "write F16", "quantise Q4_K_M", "check", "quantise Q8_0", "check"]
    assert recorder.stages["write F16"][0] == recorder.stages["write F16"][1]


def test_sizes_in_the_plan_are_exact(folder: Path, options: ConvertOptions) -> None:
    options = replace(
        options, quantizations=parse_quantizations("q8_0,q6_k,q4_k_m,q3_k_m,q2_k,iq4_xs"), keep_original=True
    )
    plan = plan_conversion(folder, options)
    outcome = convert(folder, options, Silent())
    assert {model.quantization: model.nbytes for model in plan.models} == {
        item.kind: item.nbytes for item in outcome.products
    }
    assert plan.fits_disk
    assert plan.to_json()["models"][0]["fits"] is True


def test_rows_that_do_not_divide_are_told_of(tmp_path: Path, spm_model: Path, options: ConvertOptions) -> None:
    model = replace(MODEL, inner=352)
    folder = write_hf_folder(tmp_path / "odd", model, random_weights(model))
    shutil.copy(spm_model, folder)
    recorder = Recorder()
    options = replace(options, quantizations=[Q4_K_M])
    assert plan_conversion(folder, options).models[0].fallbacks == {"q5_0": 1, "q8_0": 1}
    convert(folder, options, recorder)
    assert any("became q5_0" in text and "256" in text for text in recorder.warnings)


def test_the_unquantised_file_is_the_product_where_nothing_else_is_asked_for(
    folder: Path, options: ConvertOptions
) -> None:
    outcome = convert(folder, replace(options, quantizations=[], verify=True), Silent())
    assert [item.path.name for item in outcome.products] == ["tiny-F16.gguf"]
    assert (options.out / "tiny-F16.gguf").stat().st_nlink == 1


def test_a_second_run_makes_nothing_again(folder: Path, options: ConvertOptions) -> None:
    convert(folder, options, Silent())
    before = (options.out / "tiny-Q8_0.gguf").stat().st_mtime_ns
    recorder = Recorder()
    assert all(item.reused for item in convert(folder, options, recorder).products)
    assert recorder.stages == {}
    assert (options.out / "tiny-Q8_0.gguf").stat().st_mtime_ns == before
    assert not any(item.reused for item in convert(folder, replace(options, force=True), Silent()).products)


def test_a_file_of_other_inputs_is_not_replaced(folder: Path, options: ConvertOptions) -> None:
    options.out.mkdir()
    (options.out / "tiny-Q8_0.gguf").write_text("precious")
    with pytest.raises(OutputExists, match="tiny-Q8_0"):
        convert(folder, options, Silent())
    assert file_names(options.out) == ["tiny-Q8_0.gguf"]


def test_a_failed_check_leaves_nothing_under_the_final_name(
    folder: Path, options: ConvertOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> list[int]:
        raise CheckFailed("broken")

    monkeypatch.setattr("llama_convert.convert.check_model", fail)
    with pytest.raises(CheckFailed):
        convert(folder, options, Silent())
    assert not [name for name in file_names(options.out) if name.endswith((".part", "Q4_K_M.gguf"))]
    monkeypatch.undo()
    recorder = Recorder()
    convert(folder, options, recorder)
    assert "write F16" not in recorder.stages, "the unquantised file of the first run is used"
    assert not (options.out / ".convert").exists()


def test_nan_leaves_nothing(tmp_path: Path, spm_model: Path, options: ConvertOptions) -> None:
    weights = random_weights(MODEL, dtype=np.float16)
    weights["lm_head.weight"][3, 3] = np.nan
    folder = write_hf_folder(tmp_path / "tiny", MODEL, weights)
    shutil.copy(spm_model, folder)
    with pytest.raises(CorruptSource, match=r"lm_head\.weight holds NaN"):
        convert(folder, options, Silent())
    assert not [name for name in file_names(options.out) if ".gguf" in name]


def test_a_small_disk_is_refused_before_the_first_byte(
    folder: Path, options: ConvertOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_convert.convert.free_bytes", lambda path: 1000)
    with pytest.raises(DiskFull, match=r"0\.00 GB are free"):
        convert(folder, options, Silent())
    assert not options.out.exists()


def test_a_disk_that_fills_up_is_named(folder: Path, options: ConvertOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(GGUFWriter, "write", full)
    with pytest.raises(DiskFull, match="the disk is full"):
        convert(folder, options, Silent())
    assert not [name for name in file_names(options.out) if ".gguf" in name]


def test_a_disk_that_fills_up_under_llama_cpp_is_named(
    folder: Path, options: ConvertOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp only says "iostream error" then."""

    def fail(*_: Any) -> None:
        monkeypatch.setattr("llama_convert.convert.free_bytes", lambda path: 0)
        raise WorkerFailed("iostream error")

    monkeypatch.setattr("llama_convert.convert.run_worker", fail)
    with pytest.raises(DiskFull, match="the disk is full"):
        convert(folder, options, Silent())
    assert not list(options.out.glob("*.gguf*"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(folder: Path, options: ConvertOptions) -> None:
    options.out.mkdir(mode=0o500)
    with pytest.raises(ConvertError, match="Permission denied"):
        convert(folder, options, Silent())


def test_an_output_that_cannot_be_made_is_named(folder: Path, options: ConvertOptions, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConvertError, match="file"):
        convert(folder, replace(options, out=tmp_path / "file" / "out"), Silent())


def test_low_bits_need_an_importance_matrix(folder: Path, options: ConvertOptions) -> None:
    with pytest.raises(UsageError, match="IQ2_M needs an importance matrix"):
        convert(folder, replace(options, quantizations=[IQ2_M]), Silent())


def write_imatrix(path: Path, columns: int, legacy: bool) -> Path:
    """An importance matrix of all weights of the blocks."""
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    sizes = {
        f"blk.{block}.{name}.weight": 512 if name == "ffn_down" else columns
        for block in range(MODEL.layers)
        for name in matrices
    }
    random = np.random.default_rng(0)
    sums = {name: random.random(size, dtype=np.float32) + 0.1 for name, size in sizes.items()}
    if legacy:
        parts = [struct.pack("<i", len(sums))]
        for name, values in sums.items():
            raw = name.encode()
            parts.append(struct.pack(f"<i{len(raw)}s2i", len(raw), raw, 1, values.size) + values.tobytes())
        path.write_bytes(b"".join(parts))
        return path
    infos = []
    for name, values in sums.items():
        infos.append((TensorInfo(f"{name}.in_sum2", (1, values.size), TensorType.F32), values))
        infos.append((TensorInfo(f"{name}.counts", (1, 1), TensorType.F32), np.ones(1, np.float32)))
    metadata = {"general.type": string("imatrix"), "imatrix.chunk_count": i32s([1])}
    with GGUFWriter(path, metadata, [info for info, _ in infos]) as writer:
        for info, values in infos:
            writer.begin(info.name)
            writer.write(values.data)
            writer.end()
        writer.finish()
    return path


@pytest.mark.parametrize("legacy", [False, True], ids=["gguf", "legacy"])
def test_an_importance_matrix_is_used(folder: Path, options: ConvertOptions, tmp_path: Path, legacy: bool) -> None:
    matrix = write_imatrix(tmp_path / "imatrix", MODEL.width, legacy)
    options = replace(options, quantizations=[IQ2_M], imatrix=matrix)
    product = convert(folder, options, Silent()).products[0]
    kinds = {tensor.info.kind for tensor in read_gguf(product.path).tensors.values()}
    assert TensorType.IQ2_S in kinds
    assert json.loads((options.out / "tiny-IQ2_M.json").read_text())["imatrix"] == "imatrix"


@pytest.mark.parametrize("legacy", [False, True], ids=["gguf", "legacy"])
def test_an_importance_matrix_of_another_model_is_refused(
    folder: Path, options: ConvertOptions, tmp_path: Path, legacy: bool
) -> None:
    options = replace(options, imatrix=write_imatrix(tmp_path / "imatrix", 128, legacy))
    with pytest.raises(UnsupportedModel, match="imatrix: was made with another model"):
        convert(folder, options, Silent())
    assert not options.out.exists()


@pytest.mark.parametrize("raw", [b"", b"\0\0\0\0", b"GGUF", b"\x05\0\0\0\x05\0\0\0ab"])
def test_a_broken_importance_matrix_is_refused(
    folder: Path, options: ConvertOptions, tmp_path: Path, raw: bytes
) -> None:
    (tmp_path / "imatrix").write_bytes(raw)
    with pytest.raises(CorruptSource, match="imatrix"):
        convert(folder, replace(options, imatrix=tmp_path / "imatrix"), Silent())


def test_unknown_quantisations_are_refused() -> None:
    with pytest.raises(UsageError, match=r"Q9_X.*Q4_K_M"):
        parse_quantizations("Q4_K_M,q9_x")


def test_verifying_notices_a_changed_byte(
    folder: Path, options: ConvertOptions, monkeypatch: pytest.MonkeyPatch
) -> None:

    def spoil(checkpoint: Any, layout: Any, path: Path, progress: Any) -> None:
        with path.open("r+b") as file:
            file.seek(read_gguf(path).tensors["blk.1.attn_k.weight"].offset + 5)
            file.write(b"\x11")
        compare_tensors(checkpoint, layout, path, progress)

    monkeypatch.setattr("llama_convert.convert.compare_tensors", spoil)
    with pytest.raises(CheckFailed, match=r"blk\.1\.attn_k\.weight"):
        convert(folder, replace(options, verify=True), Silent())


def test_a_name_of_ones_own(folder: Path, options: ConvertOptions) -> None:
    options = replace(options, quantizations=[Q8_0], source=SourceOptions(name="mine", context=128))
    assert convert(folder, options, Silent()).products[0].path.name == "mine-Q8_0.gguf"
    assert read_gguf(options.out / "mine-Q8_0.gguf").get("llama.context_length") == 128


SCRIPT = """
import sys
from pathlib import Path
from llama_convert.output.verify import check_model, compare_tensors
from llama_convert.convert import ConvertOptions, convert
from llama_convert.progress import Silent
from llama_convert.quant.file_types import QUANTIZATIONS
class Slow(Silent):
    def start(self, stage, total):
        print(stage, flush=True)
        if stage == sys.argv[3]:
            import time; time.sleep(60)
convert(Path(sys.argv[1]), ConvertOptions(Path(sys.argv[2]), [QUANTIZATIONS["Q4_K_M"]], threads=1), Slow())
"""


@pytest.mark.parametrize("stage", ["write F16", "quantise Q4_K_M"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_leaves_no_model_and_the_next_goes_on(
    folder: Path, options: ConvertOptions, stage: str, how: signal.Signals
) -> None:
    command = [sys.executable, "-c", SCRIPT, str(folder), str(options.out), stage]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.strip() == stage:
                child.send_signal(how)
                break
        assert child.wait() != 0
    assert not [name for name in file_names(options.out) if name.endswith("M.gguf")]
    recorder = Recorder()
    outcome = convert(folder, replace(options, quantizations=[Q4_K_M]), recorder)
    assert outcome.products[0].path.is_file()
    assert ("write F16" in recorder.stages) is (stage == "write F16")
    assert not [name for name in file_names(options.out) if name.endswith(".part")]


def test_two_runs_do_not_mix(folder: Path, options: ConvertOptions) -> None:
    options.out.mkdir()
    with open_workspace(options.out, "tiny", "0" * 64), pytest.raises(ConvertError, match="another process"):
        convert(folder, options, Silent())


def test_a_junk_model_fails_the_check(tmp_path: Path) -> None:
    path = tmp_path / "junk.gguf"
    info = TensorInfo("token_embd.weight", (4, 4), TensorType.F32)
    with GGUFWriter(path, {"general.architecture": string("llama")}, [info]) as writer:
        writer.begin(info.name)
        writer.write(memoryview(bytes(64)))
        writer.end()
        writer.finish()
    with pytest.raises(CheckFailed, match=r"junk\.gguf: llama\.cpp does not load"):
        check_model(path, 1, full=False, progress=Silent())
