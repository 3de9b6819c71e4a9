"""The name of a folder of KV states, made from all that they depend on besides their tokens."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from llama_backend.engine.placement.kv_plan import KVPlan

_FORMAT = "3"
_SAMPLE = 1 << 20
"""Bytes from the start and from the end of a model's file: its metadata, and weights."""


def stamp_of(model: Path, library: Path, plan: KVPlan) -> str:
    """32 hexadecimal digits that change with the model's file, llama.cpp's build, and the layout of the cells.

    llama.cpp can only load a state into a context with the same number of streams, type of values, and use of flash
    attention; and some models scale positions by the size of the context. Raises OSError.
    """
    streams = 1 if plan.unified else plan.slots
    digest = blake2b(digest_size=16)
    layout = f"{plan.context} {streams} {plan.kv_type} {plan.flash_attention}"
    for part in (_FORMAT, layout, _facts(model), _facts(library)):
        digest.update(f"{part}\n".encode())
    with model.open("rb") as file:
        digest.update(file.read(_SAMPLE))
        file.seek(max(0, model.stat().st_size - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def _facts(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size} {found.st_mtime_ns}"
