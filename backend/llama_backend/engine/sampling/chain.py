"""The chain of llama.cpp's samplers that SamplingParams ask for, described as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llama_backend.wire.sampling import SamplingParams

_TEMPERATURE, _TOP_K, _TOP_P, _MIN_P = 0.8, 40, 0.95, 0.05
_LAST_N, _DRY_BASE, _DRY_ALLOWED, _DRY_BREAKERS = 64, 1.75, 2, ("\n", ":", '"', "*")
_XTC_THRESHOLD, _TAU, _ETA, _DECAY = 0.1, 5.0, 0.1, 0.9
"""llama.cpp's defaults (common/common.h, common_params_sampling)."""
_MIROSTAT_M = 100
"""Tokens from which mirostat 1 estimates (common/sampling.cpp)."""


@dataclass(frozen=True)
class SamplerSpec:
    """One sampler of a chain: the name of its `llama_sampler_init_…`, and its arguments."""

    name: str
    args: tuple[float, ...] = ()
    texts: tuple[str, ...] = ()
    """The strings at which DRY's sequences end."""


@dataclass(frozen=True)
class SamplerChain:
    """The samplers in their order, after `bias`."""

    specs: tuple[SamplerSpec, ...]
    bias: tuple[tuple[int, float], ...] = ()
    history: int = 0
    """How many of the last tokens the samplers look back at."""

    @property
    def is_argmax(self) -> bool:
        """Whether the chain does nothing but choose the token with the highest logit."""
        return self.specs == (SamplerSpec("greedy"),) and not self.bias


def chain_of(params: SamplingParams, n_vocab: int, suppressed: frozenset[int] = frozenset()) -> SamplerChain:
    """The chain for `params`; `suppressed` tokens are never chosen.

    The order is llama-server's: bias, penalties, DRY, top-n-sigma, top-k, typical, top-p, min-p, XTC, temperature, then
    the choice; with mirostat: bias, temperature, mirostat. Samplers that would change nothing are left out. As in
    llama-server, penalties and DRY also look at the end of the prompt.
    """
    bias = {int(token): value for token, value in (params.logit_bias or {}).items()}
    bias = {token: value if value > -100 else float("-inf") for token, value in bias.items() if token < n_vocab}
    bias |= dict.fromkeys(suppressed, float("-inf"))
    temperature = _or(params.temperature, _TEMPERATURE)
    if temperature == 0:
        specs = [*_penalties(params, n_vocab), SamplerSpec("greedy")]
    elif params.mirostat:
        specs = [SamplerSpec("temp", (temperature,)), _mirostat(params, n_vocab)]
    else:
        specs = [*_penalties(params, n_vocab), *_filters(params), _temperature(params, temperature), _choice(params)]
    return SamplerChain(tuple(specs), tuple(bias.items()), _history(specs))


def seed_of(seed: int) -> int:
    """A seed as llama.cpp takes it: 32 bits, and not the value that means "random"."""
    return (seed & 0xFFFF_FFFF) % 0xFFFF_FFFF


def _penalties(params: SamplingParams, n_vocab: int) -> Iterator[SamplerSpec]:
    repeat = _or(params.repeat_penalty, 1.0)
    frequency, presence = _or(params.frequency_penalty, 0.0), _or(params.presence_penalty, 0.0)
    last_n = int(_or(params.repeat_last_n, _LAST_N))
    if last_n and (repeat, frequency, presence) != (1.0, 0.0, 0.0):
        yield SamplerSpec("penalties", (n_vocab, last_n, repeat, frequency, presence))
    dry_last_n = int(_or(params.dry_penalty_last_n, _LAST_N))
    if dry_last_n and params.dry_multiplier:
        base, allowed = _or(params.dry_base, _DRY_BASE), int(_or(params.dry_allowed_length, _DRY_ALLOWED))
        breakers = _DRY_BREAKERS if params.dry_sequence_breakers is None else tuple(params.dry_sequence_breakers)
        yield SamplerSpec("dry", (params.dry_multiplier, base, allowed, dry_last_n), breakers)


def _history(specs: list[SamplerSpec]) -> int:
    """The longest window of penalties and DRY."""
    windows = {"penalties": 1, "dry": 3}
    return max((int(spec.args[windows[spec.name]]) for spec in specs if spec.name in windows), default=0)


def _filters(params: SamplingParams) -> Iterator[SamplerSpec]:
    """The samplers that leave out unlikely tokens, or likely ones (XTC)."""
    keep = max(params.min_keep or 1, 1)
    if (sigma := _or(params.top_n_sigma, -1.0)) > 0:
        yield SamplerSpec("top_n_sigma", (sigma,))
    if (top_k := _or(params.top_k, _TOP_K)) > 0:
        yield SamplerSpec("top_k", (top_k,))
    if (typical := _or(params.typical_p, 1.0)) < 1:
        yield SamplerSpec("typical", (typical, keep))
    if (top_p := _or(params.top_p, _TOP_P)) < 1:
        yield SamplerSpec("top_p", (top_p, keep))
    if (min_p := _or(params.min_p, _MIN_P)) > 0:
        yield SamplerSpec("min_p", (min_p, keep))
    if (xtc := _or(params.xtc_probability, 0.0)) > 0:
        yield SamplerSpec("xtc", (xtc, _or(params.xtc_threshold, _XTC_THRESHOLD), keep, seed_of(params.seed or 0)))


def _temperature(params: SamplingParams, temperature: float) -> SamplerSpec:
    if not params.dynatemp_range:
        return SamplerSpec("temp", (temperature,))
    return SamplerSpec("temp_ext", (temperature, params.dynatemp_range, _or(params.dynatemp_exponent, 1.0)))


def _mirostat(params: SamplingParams, n_vocab: int) -> SamplerSpec:
    seed, tau, eta = seed_of(params.seed or 0), _or(params.mirostat_tau, _TAU), _or(params.mirostat_eta, _ETA)
    if params.mirostat == 1:
        return SamplerSpec("mirostat", (n_vocab, seed, tau, eta, _MIROSTAT_M))
    return SamplerSpec("mirostat_v2", (seed, tau, eta))


def _choice(params: SamplingParams) -> SamplerSpec:
    seed, target = seed_of(params.seed or 0), _or(params.adaptive_target, -1.0)
    if target >= 0:
        return SamplerSpec("adaptive_p", (target, _or(params.adaptive_decay, _DECAY), seed))
    return SamplerSpec("dist", (seed,))


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
