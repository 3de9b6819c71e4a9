"""Checks that a model computes: it loads, it decodes eight tokens, and every logit is a finite number."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from llama_convert.errors import CheckFailed
from llama_convert.worker import llama
from llama_convert.worker.limits import limit_to_file
from llama_convert.worker.messages import Checked, CheckTask

_TOKENS = 8
_CONTEXT = 64


def run_check(task: CheckTask) -> Checked:
    """Decodes eight tokens greedily.

    Raises CheckFailed where the model does not load, or computes nonsense.
    """
    lines: list[str] = []
    keep = llama.listen(lines.append)
    path = Path(task.path)
    limit_to_file(path)
    try:
        with llama.Model(path, context=_CONTEXT, threads=task.threads, check_tensors=task.full) as model:
            tokens = _greedy(model, path)
    except CheckFailed as error:
        raise CheckFailed(f"{error} {_reason(lines)}".strip()) from error
    del keep
    return Checked(tokens)


def _greedy(model: llama.Model, path: Path) -> list[int]:
    tokens = [model.bos if model.bos >= 0 else 0]
    for _ in range(_TOKENS):
        logits = model.logits(tokens, first=len(tokens) - 1)
        if not np.isfinite(logits).all():
            raise CheckFailed(f"{path}: the model computes numbers that are not finite")
        if float(np.ptp(logits)) == 0.0:
            raise CheckFailed(f"{path}: the model finds every token equally likely")
        tokens.append(int(logits[-1].argmax()))
    return tokens[1:]


def _reason(lines: list[str]) -> str:
    """The first line of the log that says what failed."""
    found = [line.strip() for line in "".join(lines).splitlines() if "error" in line or "failed" in line]
    return f"({found[0]})" if found else ""
