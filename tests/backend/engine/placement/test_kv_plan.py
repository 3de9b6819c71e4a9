"""How KV cells are laid out for what was asked and what there is."""

from __future__ import annotations

from typing import Any

import pytest

from llama_backend.engine.placement.kv_plan import KVPlan, plan_kv
from llama_backend.wire.ipc import EngineConfig

GIB = 1024**3
PER_TOKEN = 512 * 1024
"""Llama 2 7B: 2 × 2 bytes × 32 layers × 4096."""


def plan(memory: int = 16 * GIB, trained: int = 4096, **config: Any) -> KVPlan:
    return plan_kv(EngineConfig(path="x", **config), trained, PER_TOKEN, memory)


@pytest.mark.parametrize(
    ("config", "trained", "expected"),
    [
        ({}, 4096, KVPlan(4, 4096, 4096, True)),
        ({}, 2048, KVPlan(4, 2048, 2048, True)),
        ({}, 131072, KVPlan(4, 4096, 4096, True)),
        ({"context": 1000}, 4096, KVPlan(4, 1024, 1024, True)),
        ({"context": 1}, 4096, KVPlan(4, 256, 256, True)),
        ({"context": 8192}, 4096, KVPlan(4, 8192, 8192, True)),
        ({"slots": 2}, 4096, KVPlan(2, 4096, 8192, False)),
        ({"slots": 1, "context": 512}, 4096, KVPlan(1, 512, 512, False)),
        ({"slots": 3}, 4096, KVPlan(3, 4096, 8192, True)),
        ({"slots": 16, "context": 512}, 4096, KVPlan(16, 512, 8192, False)),
        ({"slots": 17, "context": 512}, 4096, KVPlan(17, 512, 8192, True)),
        ({"kv_cells": 6000}, 4096, KVPlan(4, 4096, 6144, True)),
        ({"slots": 16, "context": 2048, "kv_cells": 2000}, 4096, KVPlan(16, 2048, 2048, True)),
        ({"slots": 16, "context": 2048, "kv_cells": 500}, 4096, KVPlan(16, 2048, 2048, True)),
    ],
)
def test_plans(config: dict[str, Any], trained: int, expected: KVPlan) -> None:
    """A quarter of 16 GiB holds 8,192 tokens."""
    assert plan(trained=trained, **config) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"kv_unified": False}, KVPlan(4, 4096, 16384, False)),
        ({"kv_unified": False, "slots": 8}, KVPlan(8, 4096, 32768, False)),
        ({"kv_unified": True, "slots": 2}, KVPlan(2, 4096, 8192, True)),
        ({"kv_unified": True, "slots": 8}, KVPlan(8, 4096, 8192, True)),
        ({"kv_type": "q8_0"}, KVPlan(4, 4096, 4096, True, kv_type="q8_0")),
        ({"flash_attention": False}, KVPlan(4, 4096, 4096, True, flash_attention=False)),
        ({"batch": 64}, KVPlan(4, 4096, 4096, True, batch=64, ubatch=64)),
        ({"batch": 2, "ubatch": 99}, KVPlan(4, 4096, 4096, True, batch=4, ubatch=4)),
        ({"ubatch": 32}, KVPlan(4, 4096, 4096, True, batch=512, ubatch=32)),
    ],
)
def test_plans_by_hand(config: dict[str, Any], expected: KVPlan) -> None:
    assert plan(**config) == expected


def test_a_gpu_takes_larger_batches() -> None:
    found = plan_kv(EngineConfig(path="x"), 4096, PER_TOKEN, GIB, on_gpu=True)
    assert (found.batch, found.ubatch) == (2048, 512)


def test_one_context_is_always_there() -> None:
    assert plan(memory=1 * GIB, slots=8) == KVPlan(8, 4096, 4096, True)


def test_a_model_of_unknown_size_costs_something() -> None:
    assert plan_kv(EngineConfig(path="x", slots=2), 512, 0, GIB) == KVPlan(2, 512, 1024, False)
