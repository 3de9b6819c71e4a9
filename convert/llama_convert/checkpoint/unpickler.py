"""Unpickles what PyTorch writes for tensors, from an allow-list, without PyTorch and without running anything."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from llama_convert.checkpoint.tensor import DType
from llama_convert.errors import CorruptSource

STORAGES = {"HalfStorage": DType.F16, "BFloat16Storage": DType.BF16, "FloatStorage": DType.F32}


@dataclass(frozen=True, slots=True)
class StorageType:
    """Stands for `torch.HalfStorage` and its kin; `dtype` is None for element types that we do not convert."""

    name: str
    dtype: DType | None


@dataclass(frozen=True, slots=True)
class Storage:
    """A block of elements in the file, named by `key`."""

    kind: StorageType
    key: str
    elements: int


@dataclass(frozen=True, slots=True)
class PickledTensor:
    """A tensor as a view of a storage; `offset` and `stride` count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def contiguous(self) -> bool:
        expected = tuple(prod(self.shape[axis + 1 :]) for axis in range(len(self.shape)))
        axes = zip(self.shape, self.stride, expected, strict=True)
        return all(size == 1 or have == want for size, have, want in axes)

    @property
    def last_element(self) -> int:
        """The index in the storage of the element furthest from its start."""
        return self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> PickledTensor:
    if not isinstance(storage, Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    numbers = [offset, *shape, *stride]
    if len(shape) != len(stride) or any(type(number) is not int or number < 0 for number in numbers):
        raise pickle.UnpicklingError("a tensor with an impossible shape")
    return PickledTensor(storage, offset, tuple(shape), tuple(stride))


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


def _rebuild_from_type(function: Any, _kind: Any, args: Any, _state: Any) -> Any:
    if function is not _rebuild_tensor:
        raise pickle.UnpicklingError("a tensor of a foreign kind")
    return _rebuild_tensor(*args)


_ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    ("torch", "Tensor"): "Tensor",
    ("torch.nn.parameter", "Parameter"): "Parameter",
}


class _TensorUnpickler(pickle.Unpickler):
    """Knows the few names of `_ALLOWED` and the storage types; every other name ends the reading."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return StorageType(name, STORAGES.get(name))
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Storage:
        match pid:
            case ("storage", StorageType() as kind, str(key), _, int(elements)) if elements >= 0:
                return Storage(kind, key, elements)
        raise pickle.UnpicklingError("a storage that is described in an unknown way")


def unpickle_tensors(path: Path, raw: bytes) -> dict[str, PickledTensor]:
    """The named tensors in the pickle `raw` of the file `path`.

    Raises:
        CorruptSource: the pickle is broken, or asks for anything beyond tensors. Nothing of it has been run.
    """
    try:
        found = _TensorUnpickler(io.BytesIO(raw)).load()
    except Exception as error:
        # A hostile pickle can raise anything.
        raise CorruptSource(f"{path}: refused, its pickle is broken or holds more than tensors: {error}") from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict):
        raise CorruptSource(f"{path}: holds no table of tensors")
    return {str(name): tensor for name, tensor in found.items() if isinstance(tensor, PickledTensor)}
