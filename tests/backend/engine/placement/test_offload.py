"""Which layers go to which GPU, on GPUs that are made up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_backend.engine.llama.devices import usable
from llama_backend.engine.placement.device import Device
from llama_backend.engine.placement.offload import (
    ContextSize,
    ModelShape,
    Offload,
    compute_bytes,
    plan_offload,
    with_draft,
)
from llama_backend.errors import DeviceUnavailable

MIB, GIB = 1 << 20, 1 << 30
LLAMA_7B = ModelShape(
    layers=(112 * MIB,) * 32, output=103 * MIB, kv_per_token=(16 * 1024,) * 32, n_embd=4096, n_ff=11008, n_vocab=32000
)
"""Q4_0: 3.6 GiB of weights, 512 KiB of keys and values a token."""
SIZE = ContextSize(cells=4096, ubatch=512, outputs=4)


def gpu(free: float, total: float | None = None, name: str = "CUDA0") -> Device:
    """Sizes in GiB."""
    return Device(name, "a GPU", int(free * GIB), int((total or free) * GIB))


def layers(*devices: Device, wanted: int | None = None, **options: object) -> list[int]:
    plan = plan_offload(LLAMA_7B, SIZE, devices, wanted, **options)  # type: ignore[arg-type]
    return [plan.layers, *(share.layers for share in plan.shares)]


@pytest.mark.parametrize(
    ("free", "total", "expected"),
    [(24, 24, 33), (8, 8, 33), (6, 6, 30), (4, 4, 20), (3.5, 8, 14), (1, 8, 0), (0, 0, 0), (0.3, 0.3, 1)],
)
def test_as_many_as_fit(free: float, total: float, expected: int) -> None:
    """Of 4 GiB an eighth stays free, 117 MiB are for computing and 103 for the output; a layer takes 112 + 64."""
    assert layers(gpu(free, total)) == [expected, expected]


@pytest.mark.parametrize(("wanted", "expected"), [(-1, 33), (0, 0), (1, 1), (20, 20), (33, 33), (99, 33)])
def test_what_was_asked_for_is_obeyed_whether_it_fits_or_not(wanted: int, expected: int) -> None:
    plan = plan_offload(LLAMA_7B, SIZE, [gpu(0.5)], wanted)
    assert (plan.layers, plan.is_fixed, plan.is_whole) == (expected, True, expected == 33)


def test_the_last_layers_go_to_gpus_and_the_output_is_one_of_them() -> None:
    plan = plan_offload(LLAMA_7B, SIZE, [gpu(24)], 2)
    assert plan.shares[0].weights == 103 * MIB + 112 * MIB
    assert plan.shares[0].kv == 4096 * 16 * 1024


@pytest.mark.parametrize(
    ("split", "expected"),
    [(None, [33, 22, 11]), ((1.0, 1.0), [33, 17, 16]), ((0.0, 1.0), [33, 0, 33]), ((3.0,), [33, 33, 0])],
)
def test_several_gpus_share_by_parts_or_by_free_memory(split: tuple[float, ...] | None, expected: list[int]) -> None:
    assert layers(gpu(16), gpu(8, name="CUDA1"), split=split) == expected


def test_the_smallest_gpu_limits_all_where_parts_are_given() -> None:
    chosen, first, second = layers(gpu(24), gpu(2, name="CUDA1"), split=(1.0, 1.0))
    assert chosen < 33
    assert abs(first - second) <= 1


def test_one_gpu_of_several() -> None:
    plan = plan_offload(LLAMA_7B, SIZE, [gpu(24), gpu(4, name="CUDA1")], None, main=1)
    assert [share.device.name for share in plan.shares] == ["CUDA1"]
    assert (plan.layers, plan.main_gpu) == (20, 1)


def test_smaller_keys_and_values_make_room_for_layers() -> None:
    small = replace(LLAMA_7B, kv_per_token=(16 * 1024 * 18 / 64,) * 32)
    assert plan_offload(small, SIZE, [gpu(6)], None).layers == 33


def test_the_line_for_the_log_tells_what_the_context_costs() -> None:
    text = plan_offload(LLAMA_7B, SIZE, [gpu(8)], None).text
    assert "33 of 33, as many as fit" in text
    assert "CUDA0 (a GPU): 33 layers, weights 3687 MiB, KV 2048 MiB" in text
    assert "of 8192 MiB free" in text


@given(
    free=st.lists(st.integers(0, 40 * GIB), min_size=1, max_size=4),
    count=st.integers(1, 80),
    weight=st.integers(1, 400 * MIB),
    cells=st.integers(256, 32768),
)
def test_a_plan_fits_and_one_layer_more_would_not(free: list[int], count: int, weight: int, cells: int) -> None:
    shape = replace(LLAMA_7B, layers=(weight,) * count, kv_per_token=(16 * 1024,) * count)
    devices = [Device(f"CUDA{number}", "", size, size) for number, size in enumerate(free)]
    size = replace(SIZE, cells=cells)
    plan = plan_offload(shape, size, devices, None)
    assert sum(share.layers for share in plan.shares) == plan.layers
    assert plan.layers == 0 or all(share.fits for share in plan.shares)
    if plan.layers < plan.of:
        more = plan_offload(shape, size, devices, plan.layers + 1)
        assert not all(share.fits for share in more.shares)


def test_what_computing_takes_grows_with_the_context() -> None:
    assert compute_bytes(LLAMA_7B, replace(SIZE, cells=8192)) > compute_bytes(LLAMA_7B, SIZE) > 100 * MIB


@pytest.mark.parametrize(
    ("devices", "wanted", "split", "main", "expected"),
    [
        (0, None, None, None, False),
        (0, 0, None, None, False),
        (1, None, None, None, True),
        (1, 0, None, None, False),
        (2, 5, [1.0], 1, True),
    ],
)
def test_whether_gpus_are_used(
    devices: int, wanted: int | None, split: list[float] | None, main: int | None, expected: bool
) -> None:
    assert usable([gpu(8)] * devices, wanted, split, main) is expected


@pytest.mark.parametrize(
    ("devices", "wanted", "split", "main", "reason"),
    [
        (0, 5, None, None, "a GPU was asked for"),
        (0, -1, None, None, "a GPU was asked for"),
        (0, None, [1.0], None, "a GPU was asked for"),
        (0, None, None, 0, "a GPU was asked for"),
        (1, None, None, 1, "GPU 1 was asked for, but there are 1"),
        (1, None, [1.0, 1.0], None, "over 2 GPUs, but there are 1"),
    ],
)
def test_a_gpu_that_is_not_there(
    devices: int, wanted: int | None, split: list[float] | None, main: int | None, reason: str
) -> None:
    with pytest.raises(DeviceUnavailable, match=reason):
        usable([gpu(8)] * devices, wanted, split, main)


def test_nothing_on_gpus_is_not_the_whole() -> None:
    assert not Offload(0, 33, (), is_fixed=False).is_whole


SMALL = ModelShape(
    layers=(20 * MIB,) * 20, output=30 * MIB, kv_per_token=(1024,) * 20, n_embd=2048, n_ff=5632, n_vocab=32000
)


@pytest.mark.parametrize(
    ("devices", "chosen"),
    [([gpu(24)], 0), ([gpu(4), gpu(24, name="CUDA1")], 1), ([gpu(7)], None), ([gpu(4)], None)],
)
def test_a_draft_model_goes_where_all_of_the_model_fits_beside_it(devices: list[Device], chosen: int | None) -> None:
    planned = with_draft(SMALL, SIZE, devices, lambda left: plan_offload(LLAMA_7B, SIZE, left, None))
    assert (planned.draft_gpu if planned else None) == chosen
    if planned and planned.for_draft:
        assert (planned.is_whole, planned.for_draft.is_whole, planned.for_draft.main_gpu) == (True, True, chosen)
        assert sum(share.device.free for share in planned.shares) < sum(device.free for device in devices)


def test_without_a_gpu_for_it_a_draft_model_is_computed_here() -> None:
    assert plan_offload(LLAMA_7B, SIZE, [gpu(24)], None).for_draft is None
