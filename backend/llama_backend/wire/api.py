"""OpenAI-compatible requests, answers and events of a stream, for client and server.

Decoding validates: `msgspec.ValidationError` names the wrong field. Unknown fields are ignored. Known fields that this
backend does not support are refused, since ignoring them would change the answer.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from llama_backend.errors import InvalidRequest
from llama_backend.wire.sampling import SamplingParams as SamplingParams
from llama_backend.wire.status import Natural, State, Whole

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "cancelled", "error"]

MOST_CHOICES = 128
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
TopLogprobs = Annotated[int, Meta(ge=0, le=20)]
CacheSalt = Annotated[str, Meta(min_length=1, max_length=256)]


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


class StreamOptions(Struct, frozen=True):
    include_usage: bool = False


class SchemaFormat(Struct, frozen=True, kw_only=True):
    """The schema of a `response_format`; `name` and `strict` are accepted and ignored."""

    name: str = ""
    schema: dict[str, Any] | bool = {}
    strict: bool | None = None


class ResponseFormat(Struct, frozen=True, kw_only=True):
    """The format that the answer must have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaFormat | None = None
    schema: dict[str, Any] | None = None
    """The schema of a `json_object`, an extension of llama-server."""

    @property
    def required_schema(self) -> dict[str, Any] | bool | None:
        """The schema that the answer must satisfy, or None for plain text."""
        if self.type == "json_schema" and self.json_schema is not None:
            return self.json_schema.schema
        return (self.schema or {"type": "object"}) if self.type == "json_object" else None


class _Request(SamplingParams, frozen=True, kw_only=True):
    """The fields that chat and text completions share."""

    model: str = ""
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=MOST_CHOICES)] | None = None
    """Number of answers to the prompt, which is computed once; each further answer has the next seed."""
    response_format: ResponseFormat | None = None
    timeout: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    """Seconds until the answer must be complete; then it ends with an error. Text that was sent by then stays valid."""
    store: bool | None = None
    """False keeps the request's KV state in its slot only, and neither in RAM nor on disk."""
    cache_salt: CacheSalt | None = None
    """Only requests with the same salt may use what was computed for this one (vLLM's field)."""

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self) -> SamplingParams:
        """As `SamplingParams.sampling`, with the schema of `response_format` as `json_schema`."""
        found = super().sampling()
        schema = self.response_format.required_schema if self.response_format else None
        return found if schema is None else msgspec.structs.replace(found, json_schema=schema)

    @property
    def choices(self) -> int:
        """The number of answers."""
        return self.n or 1

    def validate(self) -> None:
        super().validate()
        chosen = self.response_format
        if chosen is None or chosen.type == "text":
            return
        if chosen.type == "json_schema" and chosen.json_schema is None:
            text = "response_format.json_schema: this field is missing; give the schema in it"
            raise InvalidRequest(text, param="response_format.json_schema")
        if self.grammar is not None or self.json_schema is not None:
            text = "response_format: give only one of response_format, grammar and json_schema"
            raise InvalidRequest(text, param="response_format")


class ChatRequest(_Request, frozen=True, kw_only=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None

    @property
    def alternatives(self) -> int | None:
        """Number of alternatives that are reported for each token; None means no log probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def validate(self) -> None:
        super().validate()
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest("top_logprobs: set logprobs to true as well", param="top_logprobs")
        for name in ("tools", "functions"):
            if getattr(self, name):
                raise InvalidRequest(f"{name}: this backend does not support tools; leave the field out", param=name)


class CompletionRequest(_Request, frozen=True, kw_only=True):
    """`POST /v1/completions`: the continuation of a text or of token ids, without a chat template."""

    prompt: str | list[TokenId | str]
    logprobs: TopLogprobs | None = None
    echo: bool = False
    suffix: str | None = None
    best_of: int | None = None

    @property
    def alternatives(self) -> int | None:
        """Number of alternatives that are reported for each token; None means no log probabilities."""
        return self.logprobs

    def validate(self) -> None:
        super().validate()
        if self.best_of not in (None, self.choices):
            raise InvalidRequest("best_of: only the value of n is supported", param="best_of")
        for name in ("echo", "suffix"):
            if getattr(self, name):
                raise InvalidRequest(f"{name}: this backend does not support it; leave the field out", param=name)
        if not self.prompt:
            raise InvalidRequest("prompt: this field is empty; give a text or token ids", param="prompt")
        has_text = not isinstance(self.prompt, str) and any(isinstance(item, str) for item in self.prompt)
        if has_text and len(self.prompt) != 1:
            raise InvalidRequest("prompt: give one text, or the token ids of one text, in each request", param="prompt")

    @property
    def single(self) -> str | list[int]:
        """The prompt as one text or one list of token ids."""
        if isinstance(self.prompt, str):
            return self.prompt
        texts = [item for item in self.prompt if isinstance(item, str)]
        return texts[0] if texts else [item for item in self.prompt if isinstance(item, int)]


class EmbeddingRequest(Struct, frozen=True, kw_only=True):
    """`POST /v1/embeddings`: texts, or texts as token ids."""

    model: str = ""
    input: str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    """The vector is cut to its first so many numbers and scaled to length 1 again; None means all."""
    timeout: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    """Seconds until the answer must be complete."""

    @property
    def texts(self) -> list[str | list[int]]:
        """Each text, or its token ids; raises InvalidRequest for a mixture of both."""
        if isinstance(self.input, str):
            return [self.input]
        ids = [item for item in self.input if isinstance(item, int)]
        if len(ids) == len(self.input):
            return [ids]
        if ids or len({type(item) for item in self.input}) > 1:
            raise InvalidRequest("input: give texts, token ids, or lists of token ids, and no mixture", param="input")
        return [item for item in self.input if not isinstance(item, int)]


class TokenizeRequest(Struct, frozen=True, kw_only=True):
    """`POST /v1/tokenize`: a conversation, counted with its chat template, or a plain text."""

    model: str = ""
    messages: list[ChatMessage] | None = None
    prompt: str | None = None
    return_tokens: bool = False
    cache_salt: CacheSalt | None = None
    """The salt of the requests that produced the answers in `messages`; without it their token ids are not found."""


class TokenCount(Struct, frozen=True, kw_only=True):
    """The exact number of prompt tokens, and the room that they leave in the context."""

    count: Natural
    context: Natural
    """Tokens that one conversation can hold, prompt and answer together."""
    remaining: Whole
    """Tokens left for the answer; a negative number is how many tokens the prompt has too many."""
    fits: bool
    tokens: list[int] | None = None


class Usage(Struct, frozen=True):
    """Tokens of one answer. `cached_tokens` in the details are those of the prompt that did not have to be computed."""

    prompt_tokens: Whole
    completion_tokens: Whole
    total_tokens: Whole = 0
    prompt_tokens_details: dict[str, Whole] | None = None


class Timings(Struct, frozen=True):
    """Times of one answer in milliseconds, with llama.cpp's names."""

    queue_ms: float = 0.0
    """Time from acceptance to the first step with tokens of the prompt."""
    prompt_n: int = 0
    """Prompt tokens that were computed, that is, not found in the KV cache."""
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0
    predicted_per_second: float = 0.0
    draft_n: int = 0
    """Tokens that speculation drafted."""
    draft_n_accepted: int = 0
    """Drafted tokens that became part of the answer."""


class Delta(Struct, frozen=True):
    """A part of an answer. The last one has a finish reason, and usually the usage and timings."""

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
    """One event of a streamed chat completion, from this backend or another server."""

    id: str = ""
    model: str = ""
    choices: list[ChunkChoice] = []
    usage: Usage | None = None
    timings: Timings | None = None
    seed: Seed | None = None


class ModelMeta(Struct, frozen=True, kw_only=True):
    """Facts about a model that OpenAI's fields do not cover."""

    context: Natural | None = None
    context_trained: Natural | None = None
    architecture: str | None = None
    quantization: str | None = None
    parameters: Natural | None = None
    size: Natural | None = None
    path: str | None = None


OURS = "llama-chat"
"""The `owned_by` of this backend's models, by which clients recognise it."""
ModelState = State | Literal["unloaded"]


class ModelInfo(Struct, frozen=True, kw_only=True):
    """One model of `GET /v1/models`."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = OURS
    meta: ModelMeta | None = None
    state: ModelState | None = None
    """Whether the model is loaded; None where the server does not report it."""


class ModelList(Struct, frozen=True):
    data: list[ModelInfo]
    object: str = "list"


decode_chunk = msgspec.json.Decoder(ChatChunk).decode
encode = msgspec.json.Encoder().encode
