"""One request inside the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from llama_backend.account import LOCAL, Account
from llama_backend.engine.kv.cache import Slot
from llama_backend.engine.prompt.detokenizer import Detokenizer
from llama_backend.engine.sampling.logprobs import LogprobTrail

if TYPE_CHECKING:
    from llama_backend.engine.speculation.draft_history import Drafting


class SequenceStatus(Enum):
    WAITING = "waiting"
    PREFILL = "prefill"
    DECODE = "decode"
    FINISHED = "finished"


@dataclass(slots=True)
class Clock:
    """Moments of a sequence, in seconds of `time.perf_counter`."""

    accepted: float = 0.0
    started: float = 0.0
    first_token: float = 0.0
    last_token: float = 0.0


@dataclass(slots=True, eq=False)
class Sequence:
    """Prompt and completion of one request, and how far its KV cells have come."""

    id: int
    tokens: list[int]
    """Prompt and completion; the KV cells of the slot hold a prefix of it."""
    detokenizer: Detokenizer
    sampler: Any = None
    """The sampler chain; opaque here, made and used by the runner."""
    has_grammar: bool = False
    logprobs: LogprobTrail | None = None
    """Where log probabilities were asked for."""
    max_tokens: int | None = None
    """The most tokens that the completion may have."""
    status: SequenceStatus = SequenceStatus.WAITING
    slot: Slot | None = None
    cached: int = 0
    """Prompt tokens that were found in the KV cache."""
    leader: Sequence | None = None
    """A sequence whose prompt begins in the same way and is being computed; its cells are waited for."""
    led: int = 0
    """Tokens that the leader has in common with this one."""
    account: Account = LOCAL
    """Whose it is."""
    scope: str = ""
    """Who else may use what is computed for it."""
    private: bool = False
    """Its tokens are to be kept nowhere but in its slot."""
    drafting: Drafting | None = None
    """What may come next, where speculation is on and the first token is there."""
    clock: Clock = field(default_factory=Clock)
    n_prompt: int = field(init=False)

    def __post_init__(self) -> None:
        self.n_prompt = len(self.tokens)

    @property
    def n_completion(self) -> int:
        return len(self.tokens) - self.n_prompt

    @property
    def computed(self) -> int:
        """Tokens whose KV cells are there."""
        return len(self.slot.tokens) if self.slot else 0

    @property
    def pending(self) -> int:
        """Tokens that have yet to be decoded: one while decoding, more in prefill."""
        return len(self.tokens) - self.computed

    @property
    def remaining(self) -> int | None:
        """Tokens that the completion may still get, or None for no limit."""
        return None if self.max_tokens is None else self.max_tokens - self.n_completion
