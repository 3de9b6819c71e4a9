"""One answer inside the engine: its request, and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from llama_backend.account import LOCAL, Account
from llama_backend.engine.kv.slots import Slot
from llama_backend.engine.prompt.detokenizer import Detokenizer
from llama_backend.engine.sampling.logprobs import LogprobTrail
from llama_backend.wire.api import SamplingParams

if TYPE_CHECKING:
    from llama_backend.engine.speculation.draft_history import DraftHistory


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """The request for one answer, to a prompt that fits the context."""

    id: int
    tokens: list[int]
    """The prompt."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    is_chat: bool = False
    """Whether the answer begins a message, whose leading space is not shown."""
    top_logprobs: int | None = None
    """Number of alternatives that are reported for each token; None means no log probabilities."""
    store: bool = True
    """Whether its KV state may be kept anywhere but in its slot."""
    account: Account = LOCAL
    scope: str = ""
    """Requests of the same scope may use what is computed for it, see `scope_of`."""


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


class Sequence:
    """Prompt and completion of one request, and how far its KV cells have come."""

    __slots__ = (
        "account",
        "cached",
        "clock",
        "detokenizer",
        "draft_history",
        "has_grammar",
        "id",
        "logprobs",
        "max_tokens",
        "n_prompt",
        "prefix_source",
        "request",
        "sampler",
        "scope",
        "shared_tokens",
        "slot",
        "status",
        "tokens",
    )

    def __init__(self, request: EngineRequest, detokenizer: Detokenizer, sampler: Any = None) -> None:
        """`sampler` is the sampler chain that the runner has made; only the runner uses it."""
        self.request = request
        self.id = request.id
        self.account = request.account
        self.scope = request.scope
        self.max_tokens = request.sampling.limit
        """The most tokens that the completion may have; None means no limit."""
        self.has_grammar = request.sampling.grammar is not None
        self.detokenizer = detokenizer
        self.sampler = sampler
        self.tokens = list(request.tokens)
        """Prompt and completion; the KV cells of the slot hold a prefix of it."""
        self.n_prompt = len(self.tokens)
        self.logprobs = None if request.top_logprobs is None else LogprobTrail(request.top_logprobs)
        self.status = SequenceStatus.WAITING
        self.slot: Slot | None = None
        self.cached = 0
        """Prompt tokens that were found in the KV cache."""
        self.prefix_source: Sequence | None = None
        """A sequence that is computing a prefix of this one; this one waits for it and takes over its cells."""
        self.shared_tokens = 0
        """Tokens that it has in common with `prefix_source`."""
        self.draft_history: DraftHistory | None = None
        """What speculation knows of it; None where speculation is off, and before the first token."""
        self.clock = Clock()

    @property
    def n_completion(self) -> int:
        return len(self.tokens) - self.n_prompt

    @property
    def computed(self) -> int:
        """Tokens that have KV cells."""
        return len(self.slot.tokens) if self.slot else 0

    @property
    def pending(self) -> int:
        """Tokens that have yet to be decoded: one while decoding, more in prefill."""
        return len(self.tokens) - self.computed

    @property
    def remaining(self) -> int | None:
        """Tokens that the completion may still get; None means no limit."""
        return None if self.max_tokens is None else self.max_tokens - self.n_completion
