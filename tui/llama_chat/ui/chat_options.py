"""How a chat is started."""

from __future__ import annotations

from dataclasses import dataclass, field

from llama_backend.wire.api import SamplingParams


@dataclass(frozen=True)
class ChatOptions:
    """How to ask, and how to name the backend on the screen."""

    target_name: str = "local"
    """`local`, or the name of the target elsewhere."""
    is_saved: bool = True
    """Whether the history is kept after the chat."""
    model: str = ""
    """The model to ask for; empty leaves the choice to the backend."""
    system: str = ""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    theme: str | None = None
    """One of Textual's themes; None means the default."""
