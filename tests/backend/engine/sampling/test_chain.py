"""Parameters to chains of samplers."""

from __future__ import annotations

from typing import Any

import pytest

from llama_backend.engine.sampling.chain import SamplerSpec, chain_of, seed_of
from llama_backend.errors import InvalidRequest
from llama_backend.wire.api import SamplingParams

N_VOCAB = 100
DEFAULT = ["top_k 40", "top_p 0.95 1", "min_p 0.05 1", "temp 0.8", "dist 0"]


def chain(**params: Any) -> list[str]:
    """The chain in words."""
    specs = chain_of(SamplingParams(**params), N_VOCAB).specs
    return [" ".join([spec.name, *(f"{argument:g}" for argument in spec.args)]) for spec in specs]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, DEFAULT),
        ({"temperature": 0}, ["greedy"]),
        ({"temperature": 0, "top_k": 5, "seed": 3}, ["greedy"]),
        ({"temperature": 1.5}, [*DEFAULT[:3], "temp 1.5", "dist 0"]),
        ({"top_k": 0}, DEFAULT[1:]),
        ({"top_k": 5}, ["top_k 5", *DEFAULT[1:]]),
        ({"top_p": 1}, [DEFAULT[0], *DEFAULT[2:]]),
        ({"min_p": 0}, [*DEFAULT[:2], *DEFAULT[3:]]),
        ({"top_k": 0, "top_p": 1.0, "min_p": 0}, DEFAULT[3:]),
        ({"seed": 42}, [*DEFAULT[:4], "dist 42"]),
        ({"repeat_penalty": 1.1}, ["penalties 100 64 1.1 0 0", *DEFAULT]),
        ({"repeat_penalty": 1.0}, DEFAULT),
        ({"repeat_penalty": 1.1, "repeat_last_n": 0}, DEFAULT),
        ({"repeat_penalty": 1.1, "repeat_last_n": 7}, ["penalties 100 7 1.1 0 0", *DEFAULT]),
        ({"frequency_penalty": 0.5}, ["penalties 100 64 1 0.5 0", *DEFAULT]),
        ({"presence_penalty": -0.5}, ["penalties 100 64 1 0 -0.5", *DEFAULT]),
        ({"temperature": 0, "repeat_penalty": 1.2}, ["penalties 100 64 1.2 0 0", "greedy"]),
        ({"temperature": 0, "mirostat": 2}, ["greedy"]),
        ({"typical_p": 0.7}, [DEFAULT[0], "typical 0.7 1", *DEFAULT[1:]]),
        ({"typical_p": 1}, DEFAULT),
        ({"top_n_sigma": 1.5}, ["top_n_sigma 1.5", *DEFAULT]),
        ({"top_n_sigma": 0}, DEFAULT),
        ({"xtc_probability": 0.5, "seed": 9}, [*DEFAULT[:3], "xtc 0.5 0.1 1 9", "temp 0.8", "dist 9"]),
        ({"xtc_probability": 0.5, "xtc_threshold": 0.2}, [*DEFAULT[:3], "xtc 0.5 0.2 1 0", *DEFAULT[3:]]),
        ({"xtc_probability": 0}, DEFAULT),
        ({"min_keep": 3}, ["top_k 40", "top_p 0.95 3", "min_p 0.05 3", *DEFAULT[3:]]),
        ({"dynatemp_range": 0.3}, [*DEFAULT[:3], "temp_ext 0.8 0.3 1", "dist 0"]),
        ({"dynatemp_range": 0.3, "dynatemp_exponent": 2}, [*DEFAULT[:3], "temp_ext 0.8 0.3 2", "dist 0"]),
        ({"dynatemp_range": 0}, DEFAULT),
        ({"dry_multiplier": 0.8}, ["dry 0.8 1.75 2 64", *DEFAULT]),
        ({"dry_multiplier": 0.8, "dry_penalty_last_n": 0}, DEFAULT),
        ({"dry_multiplier": 0}, DEFAULT),
        (
            {"dry_multiplier": 1, "dry_base": 2, "dry_allowed_length": 3, "dry_penalty_last_n": 9, "temperature": 0},
            ["dry 1 2 3 9", "greedy"],
        ),
        ({"mirostat": 1, "seed": 4}, ["temp 0.8", "mirostat 100 4 5 0.1 100"]),
        ({"mirostat": 2, "mirostat_tau": 3, "mirostat_eta": 0.2}, ["temp 0.8", "mirostat_v2 0 3 0.2"]),
        ({"mirostat": 2, "repeat_penalty": 1.1, "top_k": 5}, ["temp 0.8", "mirostat_v2 0 5 0.1"]),
        ({"mirostat": 0}, DEFAULT),
        ({"adaptive_target": 0.4, "seed": 3}, [*DEFAULT[:4], "adaptive_p 0.4 0.9 3"]),
        ({"adaptive_target": -1}, DEFAULT),
        (
            dict.fromkeys(("dry_multiplier", "top_n_sigma", "xtc_probability", "dynatemp_range"), 1)
            | {"typical_p": 0.5, "repeat_penalty": 2},
            [
                "penalties 100 64 2 0 0",
                "dry 1 1.75 2 64",
                "top_n_sigma 1",
                "top_k 40",
                "typical 0.5 1",
                "top_p 0.95 1",
                "min_p 0.05 1",
                "xtc 1 0.1 1 0",
                "temp_ext 0.8 1 1",
                "dist 0",
            ],
        ),
    ],
)
def test_chains(params: dict[str, Any], expected: list[str]) -> None:
    assert chain(**params) == expected


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, 0),
        ({"repeat_penalty": 1.1}, 64),
        ({"repeat_penalty": 1.1, "repeat_last_n": 7}, 7),
        ({"dry_multiplier": 1, "dry_penalty_last_n": 300, "repeat_penalty": 1.1}, 300),
        ({"mirostat": 1, "repeat_penalty": 1.1}, 0),
    ],
)
def test_as_much_of_the_prompt_is_looked_at_as_the_longest_window_holds(params: dict[str, Any], expected: int) -> None:
    assert chain_of(SamplingParams(**params), N_VOCAB).history == expected


def test_the_sequences_of_dry_end_at_its_breakers() -> None:
    specs = [
        chain_of(SamplingParams(dry_multiplier=1, dry_sequence_breakers=given), 9).specs for given in (None, ["x"])
    ]
    assert [spec[0].texts for spec in specs] == [("\n", ":", '"', "*"), ("x",)]


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        (None, {}),
        ({"7": 2.5}, {7: 2.5}),
        ({"7": -100}, {7: float("-inf")}),
        ({"7": 100}, {7: 100}),
        ({"99": 1, "100": 1, "4000000000": 1}, {99: 1}),
    ],
)
def test_logit_bias(bias: dict[str, float] | None, expected: dict[int, float]) -> None:
    assert dict(chain_of(SamplingParams(logit_bias=bias), N_VOCAB).bias) == expected


def test_suppressed_tokens_are_never_chosen_whatever_the_bias_says() -> None:
    chain = chain_of(SamplingParams(logit_bias={"2": 5}), N_VOCAB, frozenset({2, 3}))
    assert dict(chain.bias) == {2: float("-inf"), 3: float("-inf")}


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"temperature": 0}, True),
        ({"temperature": 0, "logit_bias": {"1": 1}}, False),
        ({"temperature": 0, "presence_penalty": 1}, False),
        ({"temperature": 0.1}, False),
    ],
)
def test_argmax_is_enough_only_where_nothing_changes_the_logits(params: dict[str, Any], expected: bool) -> None:
    assert chain_of(SamplingParams(**params), N_VOCAB).is_argmax is expected


def test_suppressed_tokens_take_argmax_away() -> None:
    assert not chain_of(SamplingParams(temperature=0), N_VOCAB, frozenset({2})).is_argmax


@pytest.mark.parametrize(
    ("seed", "expected"),
    [(0, 0), (1, 1), (2**32 - 2, 2**32 - 2), (2**32 - 1, 0), (2**32, 0), (-1, 0), (-2, 2**32 - 2), (2**63 - 1, 0)],
)
def test_seeds_fit_llama_cpp_and_never_mean_random(seed: int, expected: int) -> None:
    assert seed_of(seed) == expected
    assert chain_of(SamplingParams(seed=seed), N_VOCAB).specs[-1] == SamplerSpec("dist", (expected,))


@pytest.mark.parametrize("token", ["", "-1", "1.5", "x", "²", "٣", "9" * 5000])
def test_what_is_no_token_id_is_refused_before_the_engine_sees_it(token: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a token id"):
        SamplingParams(logit_bias={token: 1}).validate()
