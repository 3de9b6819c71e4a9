"""The models that have a short name, and how the name of a model is read."""

from __future__ import annotations

import re
from dataclasses import dataclass

from llama_convert.errors import UsageError

LLAMA2_NOTE = (
    "Llama 2 is licensed under the LLAMA 2 Community License, Copyright (c) Meta Platforms, Inc. All Rights Reserved. "
    "Using it means accepting the licence and the acceptable use policy: https://ai.meta.com/llama/license"
)
_REPOSITORY = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*?)(?::(?P<quant>[\w.-]+))?")


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A model with a short name: where its makers publish it, and where it is ready-made as GGUF."""

    name: str
    official: str
    ready_made: str
    license: str
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """What to pull: a repository, perhaps under a short name, perhaps with a quantisation."""

    repository: str
    quantization: str | None = None
    entry: CatalogueEntry | None = None


def _llama2(size: str) -> list[CatalogueEntry]:
    plain, chat = f"Llama-2-{size.upper()}", f"Llama-2-{size.upper()}-Chat"
    official = f"meta-llama/Llama-2-{size}"
    return [
        CatalogueEntry(f"llama2:{size}", f"{official}-hf", f"TheBloke/{plain}-GGUF", "llama2", LLAMA2_NOTE),
        CatalogueEntry(f"llama2:{size}-chat", f"{official}-chat-hf", f"TheBloke/{chat}-GGUF", "llama2", LLAMA2_NOTE),
    ]


CATALOGUE: dict[str, CatalogueEntry] = {
    entry.name: entry
    for entry in (
        *_llama2("7b"),
        *_llama2("13b"),
        *_llama2("70b"),
        CatalogueEntry(
            "smollm2:135m",
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            "bartowski/SmolLM2-135M-Instruct-GGUF",
            "apache-2.0",
        ),
    )
}


def parse_target(text: str, *, official: bool = False) -> Target:
    """The repository that `text` names: a catalogue name, or `owner/repo[:QUANT]`.

    `official` picks the makers' repository of a catalogue name, which is then converted, not the ready-made one.

    Raises UsageError where it is neither.
    """
    entry = CATALOGUE.get(text.lower())
    if entry:
        return Target(entry.official if official else entry.ready_made, entry=entry)
    found = _REPOSITORY.fullmatch(text)
    if not found:
        raise UsageError(f"{text!r} is neither owner/repo[:QUANT] nor one of {', '.join(CATALOGUE)}")
    return Target(found["repo"], found["quant"])
