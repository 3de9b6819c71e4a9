"""The messages between server and engine: msgpack frames over a socket pair.

A frame is a little-endian uint32 with the number of payload bytes, then the payload: one tagged struct.
The engine sends one `StepDone` for each step, with the outputs for all sequences.
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
"""The number of payload bytes."""
MAX_FRAME = 64 * 1024 * 1024
"""Most payload bytes; a larger number can only be an error."""


class EngineConfig(Struct, frozen=True, kw_only=True):
    """How an engine process loads its model."""

    path: str
    context: int | None = None
    """Most tokens of one sequence; None means the model's own number, at most 4,096."""
    slots: int | None = None
    """Sequences that are decoded at the same time; None means four that share the cells of one context."""
    threads: int | None = None
    """None means one for each processor, and fewer while other processes use them."""
    gpu_layers: int | None = None
    """Layers on GPUs, including the output layer; None means as many as fit, -1 all. Without a GPU only 0 is valid."""
    tensor_split: list[float] | None = None
    """Parts of the model for each GPU; None means by their free memory."""
    main_gpu: int | None = None
    """The only GPU that is used, counted from 0; None means all."""
    kv_type: KVType = "f16"
    kv_unified: bool | None = None
    """Whether all sequences share one pool of KV cells; None means that `slots` and memory decide."""
    kv_cells: int | None = None
    """Cells of the pool that all sequences share; None means that `slots` and memory decide."""
    flash_attention: bool | None = None
    """None means on, where the model and the device support it."""
    batch: int | None = None
    """Most tokens of a step; None means that the device decides."""
    ubatch: int | None = None
    """Most tokens of a step that are computed at once; None means that the device decides."""
    kv_folder: str | None = None
    """Folder for KV states on disk, which only this user may read; None keeps none."""
    kv_disk: int = 2 << 30
    """Most bytes of KV states on disk; 0 keeps none."""
    kv_ram: int = 256 << 20
    """Most bytes of KV states in RAM, outside the context; 0 keeps none."""
    kv_sharing: KVSharing = "account"
    """Which requests may use each other's KV cells and states: those of one account, or all."""
    speculation: bool = True
    """Whether likely next tokens are drafted and computed together with the others where that saves time."""
    draft_model: str | None = None
    """File of a smaller model with the same vocabulary, which drafts tokens where lookup finds none."""
    module: str = "llama_backend.engine"
    """The module that is run as the engine: `python -m MODULE CONFIG SOCKET_FD NOTES_FD`."""


class Submit(Struct, frozen=True, kw_only=True, tag=True):
    """A new request for answers to chat messages, a plain text or token ids."""

    id: int = 0
    """Set by the server's table of requests when the request is handed to an engine."""
    sampling: SamplingParams
    messages: list[ChatMessage] | None = None
    prompt: str | list[int] | None = None
    n: int = 1
    """Number of answers; the first has the id and the seed of the request, each further one the next id and seed."""
    top_logprobs: int | None = None
    """Number of alternatives that are reported for each token; None means no log probabilities."""
    store: bool = True
    """Whether its KV state may be kept in RAM and on disk."""
    account: Account = LOCAL
    scope: str = ""
    """Requests of the same scope may use what was computed for this one, see `scope_of`."""


class Cancel(Struct, frozen=True, tag=True):
    """Cancels an answer, a count or an embedding."""

    id: int


class Count(Struct, frozen=True, kw_only=True, tag=True):
    """Asks for the number of tokens of a conversation or a text; the model computes nothing for it."""

    id: int = 0
    """See Submit."""
    messages: list[ChatMessage] | None = None
    prompt: str | None = None
    return_tokens: bool = False
    scope: str = ""
    """See Submit."""
    account: Account = LOCAL


class Embed(Struct, frozen=True, kw_only=True, tag=True):
    """Asks for the embeddings of texts or of lists of token ids."""

    id: int = 0
    """See Submit."""
    inputs: list[str | list[int]]
    dimensions: int | None = None
    """Each vector is cut to its first so many numbers; None means all."""
    account: Account = LOCAL


class ClearKVStates(Struct, frozen=True, tag=True):
    """Drops all KV states: those of idle slots, in RAM and on disk."""


class Stop(Struct, frozen=True, tag=True):
    """Ends the engine after its present step."""


Command = Submit | Cancel | Count | Embed | ClearKVStates | Stop


class Loading(Struct, frozen=True, tag=True):
    """The part of the model that is loaded, 0 to 1."""

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
    """The engine has changed the settings that it computes with."""

    status: TuningStatus


class Failed(Struct, frozen=True, tag=True):
    """The model could not be loaded, and the process ends. `code` is that of an error in `errors`."""

    reason: str
    code: str = "model_unreadable"


class Accepted(Struct, frozen=True, tag=True):
    """The prompt fits and the request waits for a slot."""

    id: int
    prompt_tokens: int


class Refused(Struct, frozen=True, kw_only=True, tag=True):
    """The request cannot be computed. `code` is that of an error in `errors`."""

    id: int
    code: str
    message: str
    prompt_tokens: int | None = None
    context: int | None = None
    param: str | None = None


class Counted(Struct, frozen=True, kw_only=True, tag=True):
    """The answer to `Count`."""

    id: int
    count: int
    context: int
    tokens: list[int] | None = None


class Embedded(Struct, frozen=True, kw_only=True, tag=True):
    """The embedding of one text of an `Embed`."""

    id: int
    index: int
    tokens: int
    data: bytes
    """A unit vector of little-endian float32."""


class TokenLogprob(Struct, frozen=True, array_like=True):
    """The log probability of a token of an answer, and of the most likely alternatives, as natural logarithms."""

    token: bytes
    """The token's bytes, which need not be whole characters."""
    logprob: float
    top: list[tuple[bytes, float]]


class SequenceOutput(Struct, frozen=True, array_like=True):
    """The output of one step for one sequence."""

    id: int
    text: str
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    message: str | None = None
    """What went wrong, where the finish reason is `error`."""
    logprobs: list[TokenLogprob] | None = None
    """One entry for each token of the text; None where none were asked for."""
    code: str | None = None
    """The code of an error in `errors`, where the finish reason is `error`; None means an internal error."""


class StepDone(Struct, frozen=True, kw_only=True, tag=True):
    """One step has ended."""

    outputs: list[SequenceOutput]
    running: int
    """Sequences that have a slot."""
    waiting: int
    """Sequences that wait for a slot."""


class EngineStats(Struct, frozen=True, kw_only=True, tag=True):
    """The counters of an engine since it started, and the use of its KV cells."""

    times: StepTimes
    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens that did not have to be computed, since their cells were kept in the context or in a store."""
    generated_tokens: int
    preemptions: int
    """Sequences that gave up their KV cells to others for a while."""
    kv_cells: int
    kv_used: int
    """Cells that hold tokens, also of sequences that have ended."""
    kv_busy: int
    """Cells of running sequences."""
    kv_shared: int
    """Cells saved because sequences share them."""


class StoreChanged(Struct, frozen=True, tag=True):
    """The kept KV states have changed."""

    status: KVStoreStatus


Event = (
    Loading | Ready | Tuned | Failed | Accepted | Refused | Counted | Embedded | StepDone | EngineStats | StoreChanged
)

_encoder = msgspec.msgpack.Encoder()
decode_command = msgspec.msgpack.Decoder(Command).decode
decode_event = msgspec.msgpack.Decoder(Event).decode


def frame(message: Command | Event) -> bytes:
    """The bytes of one message on the socket."""
    return framed(_encoder.encode(message))


def framed(payload: bytes) -> bytes:
    """A payload with its size in front."""
    return HEADER.pack(len(payload)) + payload


class Frames:
    """Splits a stream of bytes into the payloads of its frames."""

    def __init__(self) -> None:
        self._rest = b""
        self.wanted = 0
        """Size of the payload that is being received."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The payloads that are complete after `data`. Raises DecodeError for a frame that is too large to be real."""
        data, start = self._rest + data, 0
        while len(data) - start >= HEADER.size:
            begin = start + HEADER.size
            (self.wanted,) = HEADER.unpack_from(data, start)
            if self.wanted > MAX_FRAME:
                raise msgspec.DecodeError(f"a frame announces {self.wanted} bytes, more than {MAX_FRAME}")
            end = begin + self.wanted
            if end > len(data):
                break
            yield data[begin:end]
            start = end
        self._rest = data[start:]
