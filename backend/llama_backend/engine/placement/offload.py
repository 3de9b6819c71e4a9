"""Which layers go to which GPU, computed from sizes alone, before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from llama_backend.engine.placement.device import Device

_MOST_MARGIN = 1 << 30
_MARGIN = 8
"""An eighth of a GPU's memory stays free for other processes and surprises, at most 1 GiB, as in llama.cpp."""
_ALL = 1 << 16
"""More layers than any model has."""
_F32 = 4
_F16 = 2


@dataclass(frozen=True)
class ModelShape:
    """The sizes that decide how much memory a model takes."""

    layers: tuple[int, ...]
    """Bytes of the weights of each repeating layer."""
    output: int
    """Bytes of the weights after the layers."""
    kv_per_token: tuple[float, ...]
    """Bytes of one token's keys and values, for each repeating layer."""
    n_embd: int
    n_ff: int
    n_vocab: int


@dataclass(frozen=True)
class ContextSize:
    """The sizes that decide how much memory a context takes."""

    cells: int
    ubatch: int
    outputs: int
    """The most tokens of a batch whose logits are computed."""


@dataclass(frozen=True)
class Share:
    """The part of a model on one GPU, in bytes."""

    device: Device
    layers: int
    weights: int
    kv: int
    compute: int

    @property
    def fits(self) -> bool:
        """Whether it fits into the memory that is free, with a margin."""
        margin = min(_MOST_MARGIN, self.device.total // _MARGIN)
        return self.weights + self.kv + self.compute + margin <= self.device.free


@dataclass(frozen=True)
class Offload:
    """How many layers go to GPUs, and how; as in llama.cpp's parameters the output counts as a layer."""

    layers: int
    of: int
    shares: tuple[Share, ...]
    is_fixed: bool
    """Whether the number was set by hand."""
    split: tuple[float, ...] | None = None
    main_gpu: int | None = None
    draft_gpu: int | None = None
    """The GPU that computes the whole draft model; None means that the processor does."""

    @property
    def for_draft(self) -> Offload | None:
        """The offload of the draft model; None means that the processor computes it."""
        return None if self.draft_gpu is None else Offload(_ALL, _ALL, (), is_fixed=False, main_gpu=self.draft_gpu)

    @property
    def is_whole(self) -> bool:
        """Whether all layers are on GPUs."""
        return self.layers == self.of

    @property
    def text(self) -> str:
        """One line for the log."""
        how = "as set" if self.is_fixed else "as many as fit"
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
    """Puts `layers` layers on GPUs (-1 means all), or as many as fit where that is None."""
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
    """The offload of a model beside a draft model, which goes to the GPU with the most free memory.

    None where not all layers of the model would fit any more, since these gain more on a GPU than a draft model does.
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
    """Distributes the last `count` layers to GPUs in order, as llama.cpp does: by `split`, or by free memory."""
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
    """The memory for computing a batch: activations and mask of the tokens computed at once, and logits.

    The estimate is on the safe side: 17 to 25 % more than llama.cpp 0.5 reserved for SmolLM2-135M with flash
    attention, 512 tokens at once, and 512 to 16,384 cells.
    """
    activations = size.ubatch * (6 * shape.n_embd + 3 * shape.n_ff) * _F32
    mask = size.ubatch * size.cells * _F16
    logits = min(size.outputs, size.ubatch) * (shape.n_vocab + shape.n_embd) * _F32
    return activations + mask + logits


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
