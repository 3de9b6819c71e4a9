"""The wire: OpenAI-compatible requests, answers and events, used by both ends.

Decoding validates: `msgspec.ValidationError` names the field that is wrong. Fields that we do not know are
ignored; those that we know and cannot honour are refused, since ignoring them would change the answer.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from llama_backend.errors import InvalidRequest

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "cancelled", "error"]

_INT32 = 2**31 - 1
TokenLimit = Annotated[int, Meta(ge=1, le=_INT32)]
TokenId = Annotated[int, Meta(ge=0, le=_INT32)]
_TOKEN_ID = re.compile(r"[0-9]{1,9}")


class TextPart(Struct, frozen=True):
    """One text part of a message that is written as a list."""

    text: str
    type: Literal["text"] = "text"


class ChatMessage(Struct, frozen=True):
    """One message of a conversation."""

    role: Role
    content: str | list[TextPart] | None = None

    @property
    def text(self) -> str:
        """The content as one string."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class SamplingParams(Struct, frozen=True, kw_only=True):
    """How the next token is chosen. The defaults are llama.cpp's own."""

    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    repeat_last_n: Annotated[int, Meta(ge=0, le=65_536)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    stop: str | Annotated[list[str], Meta(max_length=16)] | None = None
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None
    ignore_eos: bool = False

    @property
    def limit(self) -> int | None:
        """The most tokens that the answer may have, or None for as many as fit."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def stops(self) -> list[str]:
        """The stop strings; empty ones are left out, since they would stop at once."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [stop for stop in stops if stop]

    def sampling(self) -> SamplingParams:
        """Only these fields, of a request that has more."""
        names = SamplingParams.__struct_fields__
        return SamplingParams(**{name: getattr(self, name) for name in names})

    def validate(self) -> None:
        """Raises InvalidRequest for what the types alone do not catch."""
        for token in self.logit_bias or {}:
            if not _TOKEN_ID.fullmatch(token):
                raise InvalidRequest(f"logit_bias: {token[:20]!r} is not a token id", param="logit_bias")


class StreamOptions(Struct, frozen=True):
    include_usage: bool = False


class _Request(SamplingParams, frozen=True, kw_only=True):
    """What chat and text completions share."""

    model: str = ""
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int | None = None
    logprobs: bool | int | None = None
    response_format: dict[str, Any] | None = None
    store: bool | None = None
    """False keeps nothing of this request beyond its slot: its KV state goes neither to disk nor to RAM."""

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def validate(self) -> None:
        super().validate()
        text_only = self.response_format in (None, {"type": "text"})
        refused = {"n": self.n not in (None, 1), "logprobs": self.logprobs, "response_format": not text_only}
        for name, wrong in refused.items():
            if wrong:
                raise InvalidRequest(f"{name}: this value is not supported by this backend", param=name)


class ChatRequest(_Request, frozen=True, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    tools: list[Any] | None = None
    functions: list[Any] | None = None

    def validate(self) -> None:
        super().validate()
        for name in ("tools", "functions"):
            if getattr(self, name):
                raise InvalidRequest(f"{name}: tools are not supported by this backend", param=name)


class CompletionRequest(_Request, frozen=True, kw_only=True):
    """`POST /v1/completions`: plain continuation of a text or of token ids."""

    prompt: str | list[TokenId | str]
    echo: bool = False
    suffix: str | None = None

    def validate(self) -> None:
        super().validate()
        for name in ("echo", "suffix"):
            if getattr(self, name):
                raise InvalidRequest(f"{name}: this value is not supported by this backend", param=name)
        if not self.prompt:
            raise InvalidRequest("prompt: it is empty", param="prompt")
        has_text = not isinstance(self.prompt, str) and any(isinstance(item, str) for item in self.prompt)
        if has_text and len(self.prompt) != 1:
            raise InvalidRequest("prompt: one text or the ids of one text a request", param="prompt")

    @property
    def single(self) -> str | list[int]:
        """The prompt as one text or one list of token ids."""
        if isinstance(self.prompt, str):
            return self.prompt
        texts = [item for item in self.prompt if isinstance(item, str)]
        return texts[0] if texts else [item for item in self.prompt if isinstance(item, int)]


class TokenizeRequest(Struct, frozen=True, kw_only=True):
    """`POST /v1/tokenize`: a conversation (with the template around it) or a plain text."""

    model: str = ""
    messages: list[ChatMessage] | None = None
    prompt: str | None = None
    return_tokens: bool = False


class TokenCount(Struct, frozen=True, kw_only=True):
    """Exact number of prompt tokens, and how that stands to the context."""

    count: int
    context: int
    """Tokens that one conversation can hold, prompt and answer together."""
    remaining: int
    """Tokens left for the answer; negative by as many as have to go."""
    fits: bool
    tokens: list[int] | None = None


class Usage(Struct, frozen=True):
    """Tokens of one answer; `cached_tokens` of the prompt were not computed again."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int = 0
    prompt_tokens_details: dict[str, int] | None = None


class Timings(Struct, frozen=True):
    """Times of one answer in milliseconds, named as llama.cpp names them."""

    queue_ms: float = 0.0
    """From acceptance to the first step that took up the prompt."""
    prompt_n: int = 0
    """Prompt tokens that were computed (not found in the KV cache)."""
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0
    predicted_per_second: float = 0.0


class Delta(Struct, frozen=True):
    """One piece of an answer; the last one carries a finish reason, and mostly usage and timings."""

    text: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    model: str = ""
    seed: int | None = None


class ChunkDelta(Struct, frozen=True, omit_defaults=True):
    role: str | None = None
    content: str | None = None


class ChunkChoice(Struct, frozen=True):
    index: int = 0
    delta: ChunkDelta = ChunkDelta()
    finish_reason: str | None = None


class ChatChunk(Struct, frozen=True, kw_only=True):
    """One event of a streamed chat completion, as a client reads it (ours or another server's)."""

    id: str = ""
    model: str = ""
    choices: list[ChunkChoice] = []
    usage: Usage | None = None
    timings: Timings | None = None
    seed: int | None = None


class ModelMeta(Struct, frozen=True, kw_only=True):
    """What a backend says of a model beyond OpenAI's fields."""

    context: int | None = None
    context_trained: int | None = None
    architecture: str | None = None
    quantization: str | None = None
    parameters: int | None = None
    size: int | None = None
    path: str | None = None


class ModelInfo(Struct, frozen=True, kw_only=True):
    """One model of `GET /v1/models`."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "llama-chat"
    meta: ModelMeta | None = None


class ModelList(Struct, frozen=True):
    data: list[ModelInfo]
    object: str = "list"


State = Literal["loading", "ready", "restarting", "failed", "draining"]


class StepTimes(Struct, frozen=True):
    """Where the engine's time went since it started, in seconds."""

    steps: int = 0
    total: float = 0.0
    decode: float = 0.0
    """Inside `llama_decode` and the wait for its results."""
    sample: float = 0.0
    """Inside llama.cpp's samplers."""


class KVStoreStatus(Struct, frozen=True, kw_only=True):
    """KV states that no slot holds: conversations that can go on without being computed again. Sizes in bytes."""

    states: int = 0
    ram_bytes: int = 0
    ram_limit: int = 0
    disk_bytes: int = 0
    disk_limit: int = 0
    folder: str | None = None
    """Where the states on disk are; None is nowhere."""
    hits: int = 0
    """Prompts that found a state."""
    hit_tokens: int = 0
    """Tokens that were not computed because of that."""


class BackendStatus(Struct, frozen=True, kw_only=True):
    """`GET /v1/status`."""

    state: State
    model: str
    progress: float = 0.0
    """Part of the model that is loaded, 0 to 1."""
    reason: str | None = None
    """Why the state is `failed` or `restarting`."""
    version: str = ""
    pid: int = 0
    engine_pid: int | None = None
    uptime: float = 0.0
    """Seconds."""
    log: str | None = None
    path: str | None = None
    context: int | None = None
    slots: int | None = None
    threads: int | None = None
    kv_unified: bool | None = None
    gpu_layers: int | None = None
    running: int = 0
    """Sequences that have a slot."""
    waiting: int = 0
    """Sequences that wait for one."""
    active: int = 0
    """Requests that have not ended, in whatever state."""
    restarts: int = 0
    rss: int | None = None
    """Resident bytes of server and engine."""
    step_times: StepTimes | None = None
    kv_store: KVStoreStatus | None = None


decode_chunk = msgspec.json.Decoder(ChatChunk).decode
encode = msgspec.json.Encoder().encode
