"""Measures how far a quantisation is from the original, on a text: perplexity, KL divergence, agreement.

Perplexity is computed as llama.cpp's `llama-perplexity` does it: the text is cut into windows, the first token of each
is BOS where the model adds one, and only the second half of a window is scored, so that every prediction has context.
The divergence of a position is sum p log(p / q) over the vocabulary, p the original's probabilities, q the quantised.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from llama_convert.errors import CheckFailed, UsageError
from llama_convert.worker import llama
from llama_convert.worker.channel import Channel
from llama_convert.worker.messages import Evaluated, EvaluateTask

_WINDOW = 512
_LEAST = 32
_LARGEST_EXPONENT = 700.0
"""Of e, in a float of 64 bits."""

Probabilities = npt.NDArray[np.float64]


def run_evaluate(task: EvaluateTask, channel: Channel) -> Evaluated:
    """Measures a model on a text.

    Raises UsageError where the text is too short, and CheckFailed where the model computes NaN or infinity.
    """
    keep = llama.listen(lambda piece: None)
    path = Path(task.path)
    with llama.Model(path, context=_WINDOW, threads=task.threads) as model:
        tokens = model.tokenize(task.text)
        windows = list(_windows(model, tokens))[: task.windows]
        if not windows:
            raise UsageError(f"the text for the report has {len(tokens)} tokens; it needs {_LEAST} or more")
        shape = (len(windows), _scored(len(windows[0])), model.vocab_size)
        store = np.memmap(task.base, np.float32, "r" if task.compare else "w+", shape=shape)
        measured = Measured()
        for index, window in enumerate(windows):
            found, wanted = _log_probabilities(model, window), window[len(window) // 2 + 1 :]
            if not np.isfinite(found).all():
                raise CheckFailed(f"{path}: the model computes numbers that are not finite")
            measured.add_loss(found, wanted)
            if task.compare:
                measured.add_divergence(store[index].astype(np.float64), found, wanted)
            else:
                store[index] = found
            channel.progress(index + 1, len(windows))
    del keep, store
    return measured.summary()


def _windows(model: llama.Model, tokens: list[int]) -> Iterator[list[int]]:
    size = min(_WINDOW, len(tokens))
    if size < _LEAST:
        return
    for start in range(0, len(tokens) - size + 1, size):
        window = tokens[start : start + size]
        yield [model.bos, *window[1:]] if model.adds_bos else window


def _scored(size: int) -> int:
    """How many predictions of a window are scored: its second half, without the last, whose next token is outside."""
    return size - size // 2 - 1


def _log_probabilities(model: llama.Model, window: list[int]) -> Probabilities:
    logits = model.logits(window, first=len(window) // 2)[:-1].astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))


class Measured:
    """The numbers that are collected over the windows, one for each position."""

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._divergences: list[float] = []
        self._agreements: list[bool] = []
        self._shifts: list[float] = []

    def add_loss(self, found: Probabilities, wanted: list[int]) -> None:
        self._losses += (-found[np.arange(len(wanted)), wanted]).tolist()

    def add_divergence(self, base: Probabilities, found: Probabilities, wanted: list[int]) -> None:
        self._divergences += (np.exp(base) * (base - found)).sum(-1).tolist()
        self._agreements += (base.argmax(-1) == found.argmax(-1)).tolist()
        rows = np.arange(len(wanted))
        self._shifts += (np.exp(found[rows, wanted]) - np.exp(base[rows, wanted])).tolist()

    def summary(self) -> Evaluated:
        """Means with their standard errors. Raises CheckFailed where the perplexity exceeds what a float holds."""
        mean, error = _mean(self._losses)
        if mean > _LARGEST_EXPONENT:
            raise CheckFailed(f"the model predicts the text so badly that its perplexity is e^{mean:.0f}")
        perplexity = float(np.exp(mean))
        summary = Evaluated(len(self._losses), perplexity, perplexity * error)
        if not self._divergences:
            return summary
        divergence, divergence_error = _mean(self._divergences)
        return msgspec.structs.replace(
            summary,
            divergence=divergence,
            divergence_error=divergence_error,
            divergence_p99=float(np.quantile(self._divergences, 0.99)),
            divergence_max=max(self._divergences),
            agreement=float(np.mean(self._agreements)),
            probability_shift=float(np.sqrt(np.mean(np.square(self._shifts)))),
        )


def _mean(values: list[float]) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(np.mean(values)), float(np.std(values) / len(values) ** 0.5)
