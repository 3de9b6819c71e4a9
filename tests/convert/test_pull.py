"""`pull`: what is chosen, fetched, checked and installed, and what is refused with which words."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llama_convert.convert import ConvertOptions, convert
from llama_convert.errors import (
    AccessDenied,
    CheckFailed,
    ConvertError,
    CorruptSource,
    DiskFull,
    DownloadFailed,
    OutputExists,
    SourceNotFound,
    UsageError,
)
from llama_convert.gguf.reader import read_gguf
from llama_convert.hub.catalogue import CATALOGUE, CatalogueEntry, parse_target
from llama_convert.output.sizes import QuantizedSize, quantized_sizes
from llama_convert.output.write_model import Layout
from llama_convert.progress import Silent
from llama_convert.pull import PullOptions, plan_pull, pull
from llama_convert.quant.file_types import Quantization, parse_quantizations
from tests.support.convert.folders import file_names
from tests.support.convert.layouts import TinyLlama, random_weights, write_hf_folder, write_meta_folder
from tests.support.convert.local_hub import COMMIT, Fault, LocalHub, pull_options
from tests.support.convert.recorder import Recorder

MODEL = TinyLlama(layers=1, inner=512)


@pytest.fixture(scope="session")
def ready_made(tmp_path_factory: pytest.TempPathFactory, spm_model: Path) -> bytes:
    """A quantised model."""
    folder = tmp_path_factory.mktemp("ready")
    write_hf_folder(folder / "tiny", MODEL, random_weights(MODEL, dtype=np.float16))
    shutil.copy(spm_model, folder / "tiny")
    options = ConvertOptions(folder / "out", parse_quantizations("Q4_K_M"), threads=1)
    return convert(folder / "tiny", options, Silent()).products[0].path.read_bytes()


@pytest.fixture
def options(hub: LocalHub, tmp_path: Path) -> PullOptions:
    return pull_options(hub, ConvertOptions(tmp_path / "models"))


def serve_source(hub: LocalHub, folder: Path, repository: str = "someone/tiny") -> None:
    hub.repositories[repository] = {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def source(hub: LocalHub, tmp_path: Path, spm_model: Path) -> None:
    """A repository with weights to convert, `someone/tiny`."""
    folder = write_hf_folder(
        tmp_path / "tiny", MODEL, random_weights(MODEL, dtype=np.float16), dtype="float16", shards=2
    )
    shutil.copy(spm_model, folder)
    (folder / "LICENSE.txt").write_text("the licence")
    (folder / "README.md").write_text("---\nlicense: llama2\nlanguage: [en]\n---\n# Tiny\n")
    serve_source(hub, folder)
    hub.repositories["someone/tiny"]["original/consolidated.00.pth"] = b"not wanted"
    hub.cards["someone/tiny"] = {"license": "llama2"}


def test_a_ready_made_model_is_installed(hub: LocalHub, options: PullOptions, ready_made: bytes) -> None:
    hub.repositories["someone/tiny-GGUF"] = {"tiny.Q4_K_M.gguf": ready_made, "tiny.Q8_0.gguf": b"", "LICENSE": b"free"}
    hub.cards["someone/tiny-GGUF"] = {"license": "mit"}
    recorder = Recorder()
    product = pull(parse_target("someone/tiny-GGUF"), options, recorder).products[0]
    assert product.path.read_bytes() == ready_made
    assert file_names(options.models) == ["tiny.Q4_K_M.LICENSE", "tiny.Q4_K_M.gguf", "tiny.Q4_K_M.json"]
    record = json.loads((options.models / "tiny.Q4_K_M.json").read_text())
    assert record["source"]["commit"] == COMMIT
    assert record["license"] == "mit"
    digest = hashlib.sha256(ready_made).hexdigest()
    assert record["source"]["files"]["tiny.Q4_K_M.gguf"] == {"size": len(ready_made), "sha256": digest}
    assert recorder.finished == ["fetch", "check"]
    again = pull(parse_target("someone/tiny-GGUF:q4_k_m"), options, Silent()).products[0]
    assert again.reused


def test_a_short_name_is_installed_under_it(
    hub: LocalHub, options: PullOptions, ready_made: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = CatalogueEntry("tiny:1b", "someone/tiny", "someone/tiny-GGUF", "llama2", "the note")
    monkeypatch.setitem(CATALOGUE, entry.name, entry)
    hub.repositories["someone/tiny-GGUF"] = {"x-Q4_K_M.gguf": ready_made}
    recorder = Recorder()
    product = pull(parse_target("TINY:1b"), options, recorder).products[0]
    assert product.path.name == "tiny:1b.gguf"
    assert recorder.warnings == ["the note"]


def test_a_split_model_keeps_its_parts(hub: LocalHub, options: PullOptions, ready_made: bytes) -> None:
    first, second = "a/tiny-Q4_K_M-00001-of-00002.gguf", "a/tiny-Q4_K_M-00002-of-00002.gguf"
    hub.repositories["someone/tiny-GGUF"] = {first: ready_made, second: b"second"}
    pull(parse_target("someone/tiny-GGUF"), options, Silent())
    parts = ["tiny-Q4_K_M-00001-of-00002.gguf", "tiny-Q4_K_M-00001-of-00002.json", "tiny-Q4_K_M-00002-of-00002.gguf"]
    assert file_names(options.models) == parts


def test_weights_are_converted(hub: LocalHub, options: PullOptions, source: None) -> None:
    plan = plan_pull(parse_target("someone/tiny"), options)
    assert not options.models.exists()
    product = pull(parse_target("someone/tiny"), options, Silent()).products[0]
    assert product.path.name == "tiny-Q4_K_M.gguf"
    assert product.nbytes == plan.models[0].nbytes
    assert plan.fetch_bytes == sum(size for path, size in hub.sent.items() if path.endswith(".safetensors"))
    assert not hub.stored_requests("consolidated.00.pth")
    record = json.loads((options.models / "tiny-Q4_K_M.json").read_text())
    assert record["source"]["repository"] == "someone/tiny"
    assert len(record["source"]["files"]) == 4
    assert record["license"] == "llama2"
    assert read_gguf(product.path).get("general.languages") == ["en"]
    files = ["tiny-Q4_K_M.gguf", "tiny-Q4_K_M.json", "tiny.LICENSE.txt"]
    assert file_names(options.models) == files


def test_metas_own_layout_is_converted(hub: LocalHub, options: PullOptions, tmp_path: Path, spm_model: Path) -> None:
    model = replace(MODEL, kv_heads=8, vocab=1000, inner=768)
    params = {"multiple_of": 256}
    folder = write_meta_folder(tmp_path / "meta", model, random_weights(model, dtype=np.float16), 2, **params)
    shutil.copy(spm_model, folder)
    serve_source(hub, folder, "someone/meta")
    plan = plan_pull(parse_target("someone/meta:Q8_0"), options)
    product = pull(parse_target("someone/meta:Q8_0"), options, Silent()).products[0]
    assert product.path.name == "meta-Q8_0.gguf"
    assert product.nbytes == plan.models[0].nbytes


def test_the_plan_is_made_once(
    hub: LocalHub, options: PullOptions, source: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp computes the sizes of the quantisations in a process of its own, which takes a while."""
    made: list[list[str]] = []

    def counted(layout: Layout, quantizations: list[Quantization]) -> list[QuantizedSize]:
        made.append([item.name for item in quantizations])
        return quantized_sizes(layout, quantizations)

    monkeypatch.setattr("llama_convert.plan.quantized_sizes", counted)
    pull(parse_target("someone/tiny"), replace(options, quant="Q4_K_M,Q8_0"), Silent())
    assert made == [["Q4_K_M", "Q8_0"]]


@pytest.mark.parametrize("option", ["Q4_K_L", "q4_k_l", " Q4_K_L"])
def test_the_option_means_the_same_as_the_quantisation_behind_the_colon(
    hub: LocalHub, options: PullOptions, ready_made: bytes, option: str
) -> None:
    hub.repositories["someone/tiny-GGUF"] = {"tiny.Q4_K_M.gguf": b"", "tiny.Q4_K_L.gguf": ready_made}
    by_name, by_option = parse_target("someone/tiny-GGUF:Q4_K_L"), parse_target("someone/tiny-GGUF")
    chosen = replace(options, quant=option)
    assert plan_pull(by_option, chosen).models == plan_pull(by_name, options).models
    assert pull(by_option, chosen, Silent()).products[0].path.name == "tiny.Q4_K_L.gguf"
    assert pull(by_name, options, Silent()).products[0].reused
    assert pull(by_name, chosen, Silent()).products[0].reused


def test_an_option_that_differs_from_the_name_is_refused(hub: LocalHub, options: PullOptions) -> None:
    message = "someone/tiny:Q8_0 and --quant Q4_K_M differ"
    for run in (plan_pull, lambda target, chosen: pull(target, chosen, Silent())):
        with pytest.raises(UsageError, match=message):
            run(parse_target("someone/tiny:Q8_0"), replace(options, quant="Q4_K_M"))
    assert hub.requests == []


def test_of_a_ready_made_model_one_quantisation_is_installed(hub: LocalHub, options: PullOptions) -> None:
    hub.repositories["someone/tiny-GGUF"] = {"tiny.Q4_K_M.gguf": b"", "tiny.Q8_0.gguf": b""}
    with pytest.raises(UsageError, match="choose one quantisation, not Q4_K_M,Q8_0"):
        pull(parse_target("someone/tiny-GGUF"), replace(options, quant="Q4_K_M,Q8_0"), Silent())
    with pytest.raises(UsageError, match="has no Q4_K_L; it has Q4_K_M"):
        pull(parse_target("someone/tiny-GGUF"), replace(options, quant="Q4_K_L"), Silent())


def test_of_a_source_all_kinds_of_the_list_are_made(hub: LocalHub, options: PullOptions, source: None) -> None:
    chosen = replace(options, quant="q8_0,F16,Q2_K")
    outcome = pull(parse_target("someone/tiny"), chosen, Silent())
    assert [item.kind for item in outcome.products] == ["Q8_0", "Q2_K", "F16"]


@pytest.mark.parametrize("name", ["someone/tiny", "someone/tiny:Q4_K_L"])
def test_a_kind_that_no_conversion_makes_is_refused_before_anything_is_fetched(
    hub: LocalHub, options: PullOptions, source: None, name: str
) -> None:
    chosen = replace(options, quant="Q4_K_L")
    with pytest.raises(UsageError, match=r"unknown quantisation Q4_K_L; a conversion can make Q8_0, .*, F32"):
        pull(parse_target(name), chosen, Silent())
    assert not [path for path, _ in hub.requests if "/resolve/" in path]


def test_an_interrupted_pull_goes_on(hub: LocalHub, options: PullOptions, source: None) -> None:
    name = "model-00002-of-00002.safetensors"
    hub.faults[name] = [Fault(cut=100_000), *[Fault(status=500)] * 10]
    with pytest.raises(DownloadFailed, match=name):
        pull(parse_target("someone/tiny"), options, Silent())
    assert not list(options.models.glob("*.gguf"))
    hub.faults.clear()
    pull(parse_target("someone/tiny"), options, Silent())
    total = sum(len(raw) for path, raw in hub.repositories["someone/tiny"].items() if path.endswith(".safetensors"))
    assert sum(hub.sent[path] for path in hub.sent if path.endswith(".safetensors")) == total


def test_the_cache_of_other_programs_is_used(
    hub: LocalHub, options: PullOptions, source: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "models--someone--tiny"
    (folder / "blobs").mkdir(parents=True)
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    for path, raw in hub.repositories["someone/tiny"].items():
        if path.endswith(".safetensors"):
            blob = folder / "blobs" / hashlib.sha256(raw).hexdigest()
            blob.write_bytes(raw)
            (folder / "snapshots" / COMMIT / path).symlink_to(blob)
    product = pull(parse_target("someone/tiny"), options, Silent()).products[0]
    assert product.path.is_file()
    assert not [path for path in hub.sent if path.endswith(".safetensors")]
    assert len(list((folder / "blobs").iterdir())) == 2, "the cache is left as it was"


def test_offline_uses_what_was_fetched(
    hub: LocalHub, options: PullOptions, source: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull(parse_target("someone/tiny"), replace(options, keep_source=True), Silent())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.requests.clear()
    product = pull(parse_target("someone/tiny:Q8_0"), options, Silent()).products[0]
    assert product.path.name == "tiny-Q8_0.gguf"
    assert hub.requests == []
    assert pull(parse_target("someone/tiny"), options, Silent()).products[0].reused
    with pytest.raises(DownloadFailed, match="HF_HUB_OFFLINE"):
        pull(parse_target("someone/other"), options, Silent())


@pytest.mark.parametrize(
    ("closed", "error", "message"),
    [
        ((401, "GatedRepo"), AccessDenied, "set HF_TOKEN"),
        ((403, "GatedRepo"), AccessDenied, "your token has no access"),
        ((401, ""), AccessDenied, "HF_TOKEN"),
        ((404, "RepoNotFound"), SourceNotFound, "no such repository"),
        ((429, ""), DownloadFailed, "slow down"),
        ((500, ""), DownloadFailed, "500"),
    ],
)
def test_closed_repositories_are_told_apart(
    hub: LocalHub, options: PullOptions, closed: tuple[int, str], error: type[ConvertError], message: str
) -> None:
    hub.closed["someone/tiny"] = closed
    with pytest.raises(error, match=f"someone/tiny.*{message}"):
        pull(parse_target("someone/tiny"), options, Silent())


def test_a_missing_revision_is_named(hub: LocalHub, options: PullOptions, source: None) -> None:
    with pytest.raises(SourceNotFound, match="revision"):
        pull(parse_target("someone/tiny"), replace(options, revision="v9"), Silent())


def test_an_unreachable_hub_is_named(hub: LocalHub, options: PullOptions) -> None:
    hub.close()
    with pytest.raises(DownloadFailed, match=r"127\.0\.0\.1"):
        pull(parse_target("someone/tiny"), options, Silent())


def test_junk_is_not_installed(hub: LocalHub, options: PullOptions) -> None:
    hub.repositories["someone/tiny-GGUF"] = {"tiny.Q4_K_M.gguf": b"GGUF junk"}
    with pytest.raises(CorruptSource, match=r"tiny\.Q4_K_M\.gguf"):
        pull(parse_target("someone/tiny-GGUF"), options, Silent())
    assert file_names(options.models) == []


def test_a_model_that_does_not_load_is_not_installed(hub: LocalHub, options: PullOptions, ready_made: bytes) -> None:
    broken = ready_made.replace(b"llama.block_count", b"llama.block_cnt__")
    hub.repositories["someone/tiny-GGUF"] = {"tiny.Q4_K_M.gguf": broken}
    with pytest.raises(CheckFailed, match="does not load"):
        pull(parse_target("someone/tiny-GGUF"), options, Silent())
    assert not list(options.models.glob("*.gguf"))


def test_a_small_file_that_is_not_the_listed_one_is_refused(
    hub: LocalHub, options: PullOptions, source: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = hub.repositories["someone/tiny"]["config.json"]
    monkeypatch.setattr("tests.support.convert.local_hub.sibling", _wrong_blob)
    with pytest.raises(CorruptSource, match="not the file that the hub lists"):
        pull(parse_target("someone/tiny"), options, Silent())
    assert real


def _wrong_blob(path: str, raw: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"rfilename": path, "size": len(raw), "blobId": "0" * 40}
    if path.endswith(".safetensors"):
        entry["lfs"] = {"sha256": "0" * 64, "size": len(raw), "pointerSize": 134}
    return entry


def test_a_small_disk_is_refused_before_the_weights(
    hub: LocalHub, options: PullOptions, source: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_convert.pull.free_bytes", lambda path: 1_000_000)
    with pytest.raises(DiskFull, match="are free"):
        pull(parse_target("someone/tiny"), options, Silent())
    assert not [path for path in hub.sent if path.endswith(".safetensors")]


def test_a_file_in_the_way_is_kept(hub: LocalHub, options: PullOptions, ready_made: bytes) -> None:
    hub.repositories["someone/tiny-GGUF"] = {"tiny.Q4_K_M.gguf": ready_made}
    options.models.mkdir()
    (options.models / "tiny.Q4_K_M.gguf").write_text("precious")
    with pytest.raises(OutputExists):
        pull(parse_target("someone/tiny-GGUF"), options, Silent())
    assert (options.models / "tiny.Q4_K_M.gguf").read_text() == "precious"
    forced = replace(options, conversion=replace(options.conversion, force=True))
    assert pull(parse_target("someone/tiny-GGUF"), forced, Silent())
    assert (options.models / "tiny.Q4_K_M.gguf").read_bytes() == ready_made
