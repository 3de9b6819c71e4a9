"""The report as a picture: the size of each model against its divergence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from llama_convert.files import replacing


class Point(Protocol):
    """What is drawn of a model."""

    @property
    def kind(self) -> str: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def divergence(self) -> float: ...


def write_plot(models: Sequence[Point], path: Path) -> bool:
    """Draws `models` to a PNG file; returns whether matplotlib is installed to do it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    _draw(figure.add_subplot(), models)
    with replacing(path) as part:
        figure.savefig(part, format="png")
    return True


def _draw(axes: Any, models: Sequence[Point]) -> None:
    ordered = sorted(models, key=lambda model: model.nbytes)
    sizes = [model.nbytes / 1e9 for model in ordered]
    divergences = [max(model.divergence, 1e-9) for model in ordered]
    axes.plot(sizes, divergences, marker="o", color="#7c6f64", markerfacecolor="#d79921", markeredgecolor="#7c6f64")
    for model, size, divergence in zip(ordered, sizes, divergences, strict=True):
        axes.annotate(model.kind, (size, divergence), textcoords="offset points", xytext=(6, 6), fontsize=9)
    axes.set_yscale("log")
    axes.margins(0.12)
    axes.set_xlabel("size in GB")
    axes.set_ylabel("mean KL divergence from the original, nats")
    axes.set_title("What quantising costs")
    axes.grid(visible=True, which="both", alpha=0.25)
