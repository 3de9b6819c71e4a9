"""SamplingParams to a chain of llama.cpp's samplers, described as data."""

from __future__ import annotations

from dataclasses import dataclass

from llama_backend.api import SamplingParams

_TEMPERATURE, _TOP_K, _TOP_P, _MIN_P, _REPEAT_LAST_N = 0.8, 40, 0.95, 0.05, 64
"""llama.cpp's defaults (common/common.h, common_params_sampling)."""


@dataclass(frozen=True)
class SamplerSpec:
    """One sampler of a chain: the name of its `llama_sampler_init_…`, and its arguments."""

    name: str
    args: tuple[float, ...] = ()


@dataclass(frozen=True)
class SamplerChain:
    """The samplers in their order; with `bias` first, as llama-server has them."""

    specs: tuple[SamplerSpec, ...]
    bias: tuple[tuple[int, float], ...] = ()

    @property
    def is_argmax(self) -> bool:
        """The token with the highest logit is all that is asked for."""
        return self.specs == (SamplerSpec("greedy"),) and not self.bias


def chain_of(params: SamplingParams, n_vocab: int, suppressed: frozenset[int] = frozenset()) -> SamplerChain:
    """The chain for `params`; `suppressed` tokens are never chosen.

    The order is llama.cpp's: bias, penalties, top-k, top-p, min-p, temperature, then the choice.
    """
    bias = {int(token): value for token, value in (params.logit_bias or {}).items()}
    bias = {token: value if value > -100 else float("-inf") for token, value in bias.items() if token < n_vocab}
    bias |= dict.fromkeys(suppressed, float("-inf"))
    temperature = _TEMPERATURE if params.temperature is None else params.temperature
    choice = _choice(params, temperature) if temperature > 0 else [SamplerSpec("greedy")]
    return SamplerChain(tuple(_penalties(params, n_vocab) + choice), tuple(bias.items()))


def seed_of(seed: int) -> int:
    """A seed as llama.cpp takes it: 32 bits, and not the value that means "random"."""
    return (seed & 0xFFFF_FFFF) % 0xFFFF_FFFF


def _penalties(params: SamplingParams, n_vocab: int) -> list[SamplerSpec]:
    repeat = 1.0 if params.repeat_penalty is None else params.repeat_penalty
    frequency, presence = params.frequency_penalty or 0.0, params.presence_penalty or 0.0
    last_n = _REPEAT_LAST_N if params.repeat_last_n is None else params.repeat_last_n
    if last_n == 0 or (repeat, frequency, presence) == (1.0, 0.0, 0.0):
        return []
    return [SamplerSpec("penalties", (n_vocab, last_n, repeat, frequency, presence))]


def _choice(params: SamplingParams, temperature: float) -> list[SamplerSpec]:
    top_k = _TOP_K if params.top_k is None else params.top_k
    top_p = _TOP_P if params.top_p is None else params.top_p
    min_p = _MIN_P if params.min_p is None else params.min_p
    specs = []
    if top_k > 0:
        specs.append(SamplerSpec("top_k", (top_k,)))
    if top_p < 1:
        specs.append(SamplerSpec("top_p", (top_p, 1)))
    if min_p > 0:
        specs.append(SamplerSpec("min_p", (min_p, 1)))
    specs.append(SamplerSpec("temp", (temperature,)))
    specs.append(SamplerSpec("dist", (seed_of(params.seed or 0),)))
    return specs
