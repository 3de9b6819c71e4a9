"""What the chat is told at its start."""

from __future__ import annotations

from dataclasses import dataclass, field

from llama_backend.wire.api import SamplingParams


@dataclass(frozen=True)
class ChatOptions:
    """How to ask, and what to call the backend."""

    where: str = "local"
    """Where the backend runs: `local`, or a host."""
    model: str = ""
    """The model to ask for; empty leaves it to the backend."""
    system: str = ""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    theme: str | None = None
    """One of Textual's themes; None is the default."""
