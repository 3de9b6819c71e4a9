"""Checks that a model computes: it loads, eight tokens follow one another, and every logit is a finite number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from llama_convert.errors import CheckFailed
from llama_convert.worker import llama
from llama_convert.worker.channel import Channel
from llama_convert.worker.limits import limit_to_file

_TOKENS = 8
_CONTEXT = 64


def run_check(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Decode eight tokens greedily with `request["path"]`; `full` has llama.cpp validate every block."""
    lines: list[str] = []
    keep = llama.listen(lines.append)
    path = Path(request["path"])
    limit_to_file(path)
    try:
        with llama.Model(path, context=_CONTEXT, threads=request["threads"], check_tensors=request["full"]) as model:
            tokens = _greedy(model, path)
    except CheckFailed as error:
        raise CheckFailed(f"{error} {_reason(lines)}".strip()) from error
    del keep
    return {"tokens": tokens, "vocab_size": model.vocab_size}


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
    """The last line of the log that says what failed."""
    found = [line.strip() for line in "".join(lines).splitlines() if "error" in line or "failed" in line]
    return f"({found[0]})" if found else ""
