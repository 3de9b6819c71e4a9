"""The figures of the report are what their definitions say, and it becomes a table and a plot."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llama_convert.convert import ConvertOptions, Outcome, convert
from llama_convert.errors import UsageError
from llama_convert.progress import Silent
from llama_convert.quant.file_types import parse_quantizations
from llama_convert.report.quality import default_text
from tests.support.convert import native
from tests.support.convert.layouts import TinyLlama, random_weights, write_hf_folder
from tests.support.convert.recorder import Recorder

MODEL = TinyLlama(layers=2, inner=512)


@pytest.fixture
def folder(tmp_path: Path, spm_model: Path) -> Path:
    made = write_hf_folder(tmp_path / "tiny", MODEL, random_weights(MODEL))
    shutil.copy(spm_model, made)
    return made


def reported(folder: Path, text: str | None, progress: Any = None) -> Outcome:
    kinds = parse_quantizations("Q8_0,Q2_K")
    options = ConvertOptions(folder.parent / "out", kinds, report=True, report_text=text, keep_original=True, threads=1)
    return convert(folder, options, progress or Silent())


def test_figures_follow_the_definitions(folder: Path) -> None:
    text = default_text()[:800]
    outcome = reported(folder, text)
    assert outcome.report is not None
    original = outcome.products[-1].path
    with native.loaded(original, vocab_only=True) as model:
        tokens = [1, *native.tokenize(model, text)][:512]
    half = len(tokens) // 2
    base, found = (_log_probabilities(path, tokens)[half:-1] for path in (original, outcome.products[1].path))
    wanted = tokens[half + 1 :]
    losses = -base[np.arange(len(wanted)), wanted]
    first, _, small = outcome.report.models
    assert outcome.report.predictions == len(wanted)
    assert first.perplexity == pytest.approx(float(np.exp(losses.mean())), rel=1e-3)
    assert small.divergence == pytest.approx(float((np.exp(base) * (base - found)).sum(-1).mean()), rel=2e-2)
    assert small.agreement == pytest.approx(float((base.argmax(-1) == found.argmax(-1)).mean()), abs=0.02)


def _log_probabilities(path: Path, tokens: list[int]) -> Any:
    logits = native.all_logits(path, tokens).astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_fewer_bits_are_further_away(folder: Path) -> None:
    outcome = reported(folder, None)
    assert outcome.report is not None
    by_kind = {model.kind: model.divergence for model in outcome.report.models}
    assert 0 < by_kind["Q8_0"] < by_kind["Q2_K"]
    assert by_kind["original"] == 0
    lines = outcome.report.table().splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["original", "Q8_0", "Q2_K"]
    saved = json.loads((folder.parent / "out" / "tiny-report.json").read_text())
    assert saved == outcome.report.to_json()
    assert outcome.report.plot is not None
    assert outcome.report.plot.read_bytes().startswith(b"\x89PNG")


def test_a_plot_needs_matplotlib(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    recorder = Recorder()
    outcome = reported(folder, None, recorder)
    assert outcome.report is not None
    assert outcome.report.plot is None
    assert any("matplotlib" in text for text in recorder.warnings)


def test_a_text_that_is_too_short_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="needs 32 or more"):
        reported(folder, "Hello.")
