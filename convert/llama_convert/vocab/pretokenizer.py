"""Which of llama.cpp's pre-tokenizers cuts text the way that a `tokenizer.json` says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from llama_convert.errors import UnsupportedModel

_GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_BYTES_ONLY = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
_LLAMA3_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_KNOWN: tuple[tuple[str, list[dict[str, Any]]], ...] = (
    ("smollm", [{"type": "Digits", "individual_digits": True}, _GPT2]),
    (
        "llama-bpe",
        [
            {"type": "Split", "pattern": {"Regex": _LLAMA3_REGEX}, "behavior": "Isolated", "invert": False},
            _BYTES_ONLY,
        ],
    ),
    ("gpt-2", [_GPT2]),
)


def pretokenizer_name(tokenizer: dict[str, Any], path: Path) -> str:
    """llama.cpp's name for the pre-tokenizer, matched by its structure.

    A wrong one would still load and would split numbers and punctuation differently, so an unknown one is refused.
    """
    steps = [_essential(step) for step in _steps(tokenizer.get("pre_tokenizer") or {})]
    for name, known in _KNOWN:
        if steps == known:
            return name
    digest = hashlib.sha256(json.dumps(steps, sort_keys=True).encode()).hexdigest()[:16]
    raise UnsupportedModel(f"{path}: the pre-tokenizer is not one of {_names()} (structure {digest})")


def _names() -> str:
    return ", ".join(name for name, _ in _KNOWN)


def _steps(part: dict[str, Any]) -> list[dict[str, Any]]:
    if part.get("type") == "Sequence":
        return [step for child in part.get("pretokenizers", []) for step in _steps(child)]
    return [part]


def _essential(step: dict[str, Any]) -> dict[str, Any]:
    """A step without what only matters for offsets, and with its defaults written out."""
    found = {key: value for key, value in step.items() if key != "trim_offsets"}
    if found.get("type") == "ByteLevel":
        found.setdefault("use_regex", True)
    return found
