"""What server and engine say to each other: msgpack frames over a socket pair.

A frame is a little-endian uint32 with the number of payload bytes, then the payload: one tagged struct.
The engine sends one `StepDone` a step, with what it brought for all sequences.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal

import msgspec
from msgspec import Struct

from llama_backend.account import LOCAL, Account
from llama_backend.wire.api import ChatMessage, FinishReason, SamplingParams, Timings, Usage
from llama_backend.wire.status import KVStoreStatus, StepTimes, TuningStatus

KVType = Literal["f16", "q8_0", "q4_0"]
KVSharing = Literal["account", "all"]
HEADER = struct.Struct("<I")
MAX_FRAME = 64 * 1024 * 1024


class EngineConfig(Struct, frozen=True, kw_only=True):
    """How an engine process loads its model."""

    path: str
    context: int | None = None
    """Tokens of one sequence; None is the model's own, at most 4,096."""
    slots: int | None = None
    """Sequences that are decoded at the same time; None is four that share the cells of one context."""
    threads: int | None = None
    """None is as many as the processors allow, and fewer while others use these."""
    gpu_layers: int | None = None
    """Layers on GPUs, the output being one; None is as many as fit, -1 all. Without a GPU any but 0 is an error."""
    tensor_split: list[float] | None = None
    """Parts of the model for each GPU; None is by their free memory."""
    main_gpu: int | None = None
    """The only GPU that is used, counted from 0; None is all."""
    kv_type: KVType = "f16"
    kv_unified: bool | None = None
    """Whether all sequences share one pool of KV cells; None is by `slots` and memory."""
    kv_cells: int | None = None
    """Cells of a pool that all sequences share; None is by `slots` and memory."""
    flash_attention: bool | None = None
    """None is on wherever the model and the device have it."""
    batch: int | None = None
    """The most tokens of a step; None is by the device."""
    ubatch: int | None = None
    """The most tokens that are computed at once in it; None is by the device."""
    kv_folder: str | None = None
    """Folder for KV states on disk, for this user's eyes only; None keeps none."""
    kv_disk: int = 2 << 30
    """Most bytes of KV states on disk; 0 keeps none."""
    kv_ram: int = 256 << 20
    """Most bytes of KV states in RAM beside the context; 0 keeps none."""
    kv_sharing: KVSharing = "account"
    """Who finds the KV cells and states of a request: others of the same account, or all."""
    speculation: bool = True
    """Whether tokens that may come next are computed along where that pays."""
    draft_model: str | None = None
    """A smaller model's file with the same vocabulary, to guess them where lookup finds nothing."""
    module: str = "llama_backend.engine"
    """What is run as the engine: `python -m MODULE CONFIG FD`."""


class Submit(Struct, frozen=True, kw_only=True, tag=True):
    """A new request: chat messages, a plain text or token ids."""

    id: int
    sampling: SamplingParams
    messages: list[ChatMessage] | None = None
    prompt: str | list[int] | None = None
    n: int = 1
    """How many answers; their ids are those from `id` on, and their seeds those from the seed on."""
    top_logprobs: int | None = None
    """Alternatives that the log probabilities of each token come with; None is without them."""
    store: bool = True
    """Whether its KV state may be kept in RAM and on disk."""
    account: Account = LOCAL
    """Whose it is."""
    scope: str = ""
    """Requests of the same scope find what was computed for it, see `scope_of`."""


class Cancel(Struct, frozen=True, tag=True):
    id: int


class Count(Struct, frozen=True, kw_only=True, tag=True):
    """Asks for the tokens of a conversation or of a text, without computing anything."""

    id: int
    messages: list[ChatMessage] | None = None
    prompt: str | None = None
    return_tokens: bool = False
    scope: str = ""
    """See Submit."""
    account: Account = LOCAL


class Embed(Struct, frozen=True, kw_only=True, tag=True):
    """Asks for the embedding of each of some texts or lists of token ids."""

    id: int
    inputs: list[str | list[int]]
    dimensions: int | None = None
    """Only as many of the first numbers; None is all."""
    account: Account = LOCAL


class ClearKVStates(Struct, frozen=True, tag=True):
    """Drops all KV states: those of idle slots, in RAM and on disk."""


class Stop(Struct, frozen=True, tag=True):
    pass


Command = Submit | Cancel | Count | Embed | ClearKVStates | Stop


class Loading(Struct, frozen=True, tag=True):
    """Part of the model that is loaded, 0 to 1."""

    progress: float


class Ready(Struct, frozen=True, kw_only=True, tag=True):
    """The model is loaded and has decoded a token."""

    context: int
    context_trained: int
    slots: int
    threads: int
    gpu_layers: int
    kv_unified: bool
    description: str
    parameters: int
    size: int
    tuning: TuningStatus | None = None


class Tuned(Struct, frozen=True, tag=True):
    """The engine computes otherwise than it said before."""

    status: TuningStatus


class Failed(Struct, frozen=True, tag=True):
    """The model could not be loaded; the process ends. `code` is one of the error tree's."""

    reason: str
    code: str = "model_unreadable"


class Accepted(Struct, frozen=True, tag=True):
    """The prompt fits and the request waits for a slot."""

    id: int
    prompt_tokens: int


class Refused(Struct, frozen=True, kw_only=True, tag=True):
    """The request cannot be run; `code` is one of the error tree's."""

    id: int
    code: str
    message: str
    prompt_tokens: int | None = None
    context: int | None = None
    param: str | None = None


class Counted(Struct, frozen=True, kw_only=True, tag=True):
    id: int
    count: int
    context: int
    tokens: list[int] | None = None


class Embedded(Struct, frozen=True, kw_only=True, tag=True):
    """The embedding of one text."""

    id: int
    index: int
    tokens: int
    data: bytes
    """A unit vector of little-endian float32."""


class TokenLogprob(Struct, frozen=True, array_like=True):
    """How likely a token of an answer was, in natural logarithms, and which others were."""

    token: bytes
    """Its bytes; they need not be whole characters."""
    logprob: float
    top: list[tuple[bytes, float]]


class SequenceOutput(Struct, frozen=True, array_like=True):
    """What one step brought for one sequence."""

    id: int
    text: str
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    message: str | None = None
    """What went wrong, where the finish reason is `error`."""
    logprobs: list[TokenLogprob] | None = None
    """Those of the text's tokens, where they were asked for."""
    code: str | None = None
    """Which of the error tree it is, where the finish reason is `error`; None is a fault of ours."""


class StepDone(Struct, frozen=True, kw_only=True, tag=True):
    outputs: list[SequenceOutput]
    running: int
    waiting: int


class EngineStats(Struct, frozen=True, kw_only=True, tag=True):
    """What an engine has counted since it started, and how its KV cells are used."""

    times: StepTimes
    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens that were not computed, since their cells were there or came from a store."""
    generated_tokens: int
    preemptions: int
    kv_cells: int
    kv_used: int
    """Cells that hold tokens, also of sequences that have ended."""
    kv_busy: int
    """Cells of sequences that run."""
    kv_shared: int
    """Cells that are saved since sequences share them."""


class StoreChanged(Struct, frozen=True, tag=True):
    """How much of KV states is kept."""

    status: KVStoreStatus


Event = (
    Loading | Ready | Tuned | Failed | Accepted | Refused | Counted | Embedded | StepDone | EngineStats | StoreChanged
)

_encoder = msgspec.msgpack.Encoder()
decode_command = msgspec.msgpack.Decoder(Command).decode
decode_event = msgspec.msgpack.Decoder(Event).decode


def frame(message: Command | Event) -> bytes:
    """The bytes of one message on the socket."""
    payload = _encoder.encode(message)
    return HEADER.pack(len(payload)) + payload


class Frames:
    """Cuts a stream of bytes into the payloads of its frames."""

    def __init__(self) -> None:
        self._rest = b""
        self.wanted = 0
        """Bytes of the payload that has begun."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The payloads that are whole now. Raises DecodeError for one that nobody would send."""
        data, start = self._rest + data, 0
        while len(data) - start >= HEADER.size:
            begin = start + HEADER.size
            (self.wanted,) = HEADER.unpack_from(data, start)
            if self.wanted > MAX_FRAME:
                raise msgspec.DecodeError(f"a frame of {self.wanted} bytes")
            end = begin + self.wanted
            if end > len(data):
                break
            yield data[begin:end]
            start = end
        self._rest = data[start:]
