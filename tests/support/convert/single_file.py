"""A checkpoint as one unquantised GGUF file, without the steps that a conversion has around that."""

from __future__ import annotations

from pathlib import Path

from llama_convert.checkpoint.tensor import DType
from llama_convert.llama_checkpoint import SourceOptions, open_checkpoint
from llama_convert.output.write_model import plan_layout, write_model
from llama_convert.progress import Silent


def write_gguf(folder: Path, path: Path, outtype: DType | None = None, *, name: str | None = None) -> None:
    """Writes the checkpoint in `folder` to `path`; `outtype` None keeps the type of the weights."""
    checkpoint = open_checkpoint(folder, SourceOptions(name=name))
    write_model(checkpoint, plan_layout(checkpoint, outtype), path, Silent())
