"""Which layers go to which GPU: computed from sizes alone, so that it is known before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from llama_backend.engine.placement.device import Device

_MOST_MARGIN = 1 << 30
_MARGIN = 8
"""A GPU keeps an eighth of its memory free for others and for what is not foreseen, at most 1 GiB (llama.cpp's own)."""
_ALL = 1 << 16
"""More layers than any model has."""
_F32 = 4
_F16 = 2


@dataclass(frozen=True)
class ModelShape:
    """What decides how much memory a model takes."""

    layers: tuple[int, ...]
    """Bytes of weights, a number for each repeating layer."""
    output: int
    """Bytes of the weights after them."""
    kv_per_token: tuple[float, ...]
    """Bytes of one token's keys and values, for each repeating layer."""
    n_embd: int
    n_ff: int
    n_vocab: int


@dataclass(frozen=True)
class ContextSize:
    """What decides how much memory a context takes."""

    cells: int
    ubatch: int
    outputs: int
    """The most tokens of a batch with logits."""


@dataclass(frozen=True)
class Share:
    """What a GPU takes on, in bytes."""

    device: Device
    layers: int
    weights: int
    kv: int
    compute: int

    @property
    def fits(self) -> bool:
        margin = min(_MOST_MARGIN, self.device.total // _MARGIN)
        return self.weights + self.kv + self.compute + margin <= self.device.free


@dataclass(frozen=True)
class Offload:
    """Layers on GPUs, the output being one of them, in the way of llama.cpp's parameters."""

    layers: int
    of: int
    shares: tuple[Share, ...]
    is_fixed: bool
    """Whether the number was asked for."""
    split: tuple[float, ...] | None = None
    main_gpu: int | None = None
    draft_gpu: int | None = None
    """The GPU that computes a draft model, all of it; None leaves that to the processor."""

    @property
    def for_draft(self) -> Offload | None:
        """Where the layers of the draft model go."""
        return None if self.draft_gpu is None else Offload(_ALL, _ALL, (), is_fixed=False, main_gpu=self.draft_gpu)

    @property
    def is_whole(self) -> bool:
        return self.layers == self.of

    @property
    def text(self) -> str:
        """One line for the log."""
        how = "as asked" if self.is_fixed else "what fits"
        parts = [
            f"{share.device.name} ({share.device.description}): {share.layers} layers, weights {_mib(share.weights)}, "
            f"KV {_mib(share.kv)}, computing {_mib(share.compute)}, of {_mib(share.device.free)} free"
            for share in self.shares
        ]
        return f"GPU layers: {self.layers} of {self.of}, {how}; " + "; ".join(parts)


def plan_offload(
    shape: ModelShape,
    size: ContextSize,
    devices: Sequence[Device],
    layers: int | None,
    split: Sequence[float] | None = None,
    main: int | None = None,
) -> Offload:
    """The layers that were asked for (-1 is all), or, where `layers` is None, as many as fit."""
    of = len(shape.layers) + 1
    chosen = list(devices) if main is None else [devices[main]]
    parts = tuple(split or ()) + (0.0,) * (len(chosen) - len(split or ())) if split else None

    def planned(count: int) -> Offload:
        shares = _shares(shape, size, chosen, count, parts)
        return Offload(count, of, shares, layers is not None, parts, main)

    if layers is not None:
        return planned(of if layers < 0 else min(layers, of))
    return next((plan for count in range(of, 0, -1) if _all_fit(plan := planned(count))), planned(0))


def with_draft(
    draft: ModelShape, size: ContextSize, devices: Sequence[Device], plan: Callable[[list[Device]], Offload]
) -> Offload | None:
    """The plan for a model beside a draft model on the GPU with the most free memory, with as many KV cells.

    None where that would take layers of the model away: those gain more on a GPU than guesses do.
    """
    gpu = max(range(len(devices)), key=lambda index: devices[index].free)
    share = _share(draft, size, devices[gpu], list(range(len(draft.layers) + 1)), [*draft.layers, draft.output])
    left = list(devices)
    left[gpu] = replace(devices[gpu], free=max(devices[gpu].free - share.weights - share.kv - share.compute, 0))
    planned = plan(left)
    fits = planned.is_whole and share.fits and _all_fit(planned)
    return replace(planned, draft_gpu=gpu) if fits else None


def _all_fit(plan: Offload) -> bool:
    return all(share.fits for share in plan.shares)


def _shares(
    shape: ModelShape, size: ContextSize, devices: Sequence[Device], count: int, split: tuple[float, ...] | None
) -> tuple[Share, ...]:
    """llama.cpp puts the last `count` layers on GPUs, one after another, by the parts or the free memory of each."""
    all_layers = [*shape.layers, shape.output]
    parts = list(accumulate(split or [device.free for device in devices]))
    owned: list[list[int]] = [[] for _ in devices]
    first = len(all_layers) - count
    for index in range(first, len(all_layers)):
        place = (index - first) / count * parts[-1]
        owner = next((number for number, end in enumerate(parts) if place < end), len(parts) - 1)
        owned[owner].append(index)
    return tuple(_share(shape, size, device, layers, all_layers) for device, layers in zip(devices, owned, strict=True))


def _share(shape: ModelShape, size: ContextSize, device: Device, layers: list[int], all_layers: list[int]) -> Share:
    kv_per_token = sum(shape.kv_per_token[index] for index in layers if index < len(shape.layers))
    return Share(
        device,
        len(layers),
        weights=sum(all_layers[index] for index in layers),
        kv=int(size.cells * kv_per_token),
        compute=compute_bytes(shape, size) if layers else 0,
    )


def compute_bytes(shape: ModelShape, size: ContextSize) -> int:
    """What a graph takes while it is computed: activations and mask of the tokens at once, and logits.

    An estimate from above: 17 to 25 % more than llama.cpp 0.5 reserved for SmolLM2-135M with flash attention, with 512
    tokens at once and 512 to 16,384 cells.
    """
    activations = size.ubatch * (6 * shape.n_embd + 3 * shape.n_ff) * _F32
    mask = size.ubatch * size.cells * _F16
    logits = min(size.outputs, size.ubatch) * (shape.n_vocab + shape.n_embd) * _F32
    return activations + mask + logits


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
