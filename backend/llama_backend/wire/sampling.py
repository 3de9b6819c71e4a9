"""The sampling parameters of a request, with llama-server's names, and the checks that their types cannot express."""

from __future__ import annotations

import re
from typing import Annotated, Any

from msgspec import Meta, Struct

from llama_backend.errors import InvalidRequest

_INT32 = 2**31 - 1
_TOKEN_ID = re.compile(r"[0-9]{1,9}")

TokenLimit = Annotated[int, Meta(ge=1, le=_INT32)]
Share = Annotated[float, Meta(ge=0, le=1)]
"""A number from 0 to 1, such as a probability."""
Window = Annotated[int, Meta(ge=0, le=65_536)]
"""A number of past tokens; 0 means none."""
Breaker = Annotated[str, Meta(min_length=1, max_length=40)]


class SamplingParams(Struct, frozen=True, kw_only=True):
    """How the next token is chosen. None means llama.cpp's default.

    As in llama.cpp, only the temperature and mirostat's own parameters count with `mirostat`, and `temperature` 0
    takes the most likely token after bias and penalties, whatever else is set.
    """

    temperature: Annotated[float, Meta(ge=0, le=100)] | None = None
    dynatemp_range: Annotated[float, Meta(ge=0, le=100)] | None = None
    """How far the temperature moves up and down with the entropy; 0 is off."""
    dynatemp_exponent: Annotated[float, Meta(ge=0, le=100)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    top_p: Share | None = None
    min_p: Share | None = None
    typical_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    """Locally typical sampling; 1 is off."""
    top_n_sigma: Annotated[float, Meta(ge=-1, le=1000)] | None = None
    """Keeps logits within this many standard deviations of the highest; 0 or less is off."""
    xtc_probability: Share | None = None
    """How often XTC removes the tokens above `xtc_threshold` except the least likely of them; 0 is off."""
    xtc_threshold: Share | None = None
    min_keep: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    """Tokens that top-p, min-p, typical and XTC keep at least."""
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    repeat_last_n: Window | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    dry_multiplier: Annotated[float, Meta(ge=0, le=100)] | None = None
    """Strength of DRY, which penalises the repetition of whole sequences; 0 is off."""
    dry_base: Annotated[float, Meta(ge=1, le=100)] | None = None
    dry_allowed_length: Window | None = None
    dry_penalty_last_n: Window | None = None
    dry_sequence_breakers: Annotated[list[Breaker], Meta(max_length=32)] | None = None
    mirostat: Annotated[int, Meta(ge=0, le=2)] | None = None
    """The version of mirostat; 0 is off."""
    mirostat_tau: Annotated[float, Meta(ge=0, le=100)] | None = None
    mirostat_eta: Share | None = None
    adaptive_target: Annotated[float, Meta(ge=-1, le=1)] | None = None
    """The probability of the tokens that adaptive-p prefers; negative is off."""
    adaptive_decay: Annotated[float, Meta(ge=0, le=0.99)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    stop: str | Annotated[list[str], Meta(max_length=16)] | None = None
    max_tokens: TokenLimit | None = None
    max_completion_tokens: TokenLimit | None = None
    ignore_eos: bool = False
    grammar: Annotated[str, Meta(min_length=1, max_length=65_536, pattern="^[^\\x00]*$")] | None = None
    """A grammar that the answer must match, in llama.cpp's notation (GBNF); its rule `root` is the whole answer."""
    json_schema: dict[str, Any] | bool | None = None
    """A JSON schema that the answer must satisfy."""

    @property
    def limit(self) -> int | None:
        """The most tokens that the answer may have, or None for as many as fit."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def stops(self) -> list[str]:
        """The stop strings without empty ones, which would stop at once."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [stop for stop in stops if stop]

    def sampling(self) -> SamplingParams:
        """The sampling parameters alone, without the other fields of a request."""
        names = SamplingParams.__struct_fields__
        return SamplingParams(**{name: getattr(self, name) for name in names})

    def validate(self) -> None:
        """Raises InvalidRequest for values that their types allow and this backend does not."""
        if self.grammar is not None and self.json_schema is not None:
            raise InvalidRequest("grammar: give either grammar or json_schema, not both", param="grammar")
        for token in self.logit_bias or {}:
            if not _TOKEN_ID.fullmatch(token):
                raise InvalidRequest(
                    f"logit_bias: {token[:20]!r} is not a token id; give ids as decimal numbers", param="logit_bias"
                )
