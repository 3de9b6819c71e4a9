"""The quality report: each quantised model against the unquantised one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from llama_convert.files import write_json
from llama_convert.progress import Progress
from llama_convert.report.plot import write_plot
from llama_convert.worker.child_process import run_worker
from llama_convert.worker.messages import Evaluated, EvaluateTask

_WINDOWS = 16


@dataclass(frozen=True, slots=True)
class Quality:
    """One model's figures. Divergences are in nats for each prediction; shares are between 0 and 1.

    The unquantised model has a divergence of 0 and an agreement of 1 by definition.
    """

    kind: str
    nbytes: int
    perplexity: float
    perplexity_error: float
    divergence: float = 0.0
    divergence_error: float = 0.0
    divergence_p99: float = 0.0
    divergence_max: float = 0.0
    agreement: float = 1.0
    probability_shift: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """All models, the unquantised one first, and how many predictions the figures rest on."""

    models: Sequence[Quality]
    predictions: int
    plot: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        rows = [{name: getattr(model, name) for name in Quality.__slots__} for model in self.models]
        return {"predictions": self.predictions, "models": rows}

    def table(self) -> str:
        """The report as lines of text."""
        head = f"{'model':10} {'GB':>7} {'perplexity':>17} {'KL divergence':>19} {'KL p99':>8} {'same top token':>15}"
        return "\n".join([head, *(_row(model) for model in self.models), f"{self.predictions} predictions"])


def default_text() -> str:
    """The text to measure on where the user gives none."""
    return resources.files("llama_convert.report").joinpath("text.txt").read_text("utf-8")


def make_report(
    original: Path,
    models: Sequence[tuple[str, Path]],
    text: str | None,
    target: Path,
    threads: int,
    progress: Progress,
) -> Report:
    """Measures `models`, pairs of a name and a file, against `original`.

    The report is written to `target` with the ending .json, and with .png if matplotlib is installed.
    """
    store = original.with_name("probabilities.f32")
    task = EvaluateTask(str(original), text or default_text(), str(store), False, _WINDOWS, threads)
    try:
        first = run_worker("measure the original", progress, task, Evaluated)
        found = [_quality("original", original, first)]
        for kind, path in models:
            task = msgspec.structs.replace(task, path=str(path), compare=True)
            found.append(_quality(kind, path, run_worker(f"measure {kind}", progress, task, Evaluated)))
    finally:
        store.unlink(missing_ok=True)
    plot = target.with_name(f"{target.name}.png")
    if not write_plot(found[1:], plot):
        progress.warn("matplotlib is not installed, so there is no plot: pip install 'llama-chat[report]'")
    report = Report(found, first.predictions, plot if plot.is_file() else None)
    write_json(target.with_name(f"{target.name}.json"), report.to_json())
    return report


def _quality(kind: str, path: Path, result: Evaluated) -> Quality:
    figures = {name: value for name, value in msgspec.structs.asdict(result).items() if name in Quality.__slots__}
    return Quality(kind, path.stat().st_size, **figures)


def _row(model: Quality) -> str:
    perplexity = f"{model.perplexity:.4f} ± {model.perplexity_error:.4f}"
    divergence = f"{model.divergence:.5f} ± {model.divergence_error:.5f}"
    size, agreement = f"{model.nbytes / 1e9:.3g}", f"{100 * model.agreement:.1f} %"
    return f"{model.kind:10} {size:>7} {perplexity:>17} {divergence:>19} {model.divergence_p99:>8.4f} {agreement:>15}"
