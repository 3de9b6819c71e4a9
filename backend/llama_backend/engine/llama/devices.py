"""The GPUs that llama.cpp sees."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

from llama_backend.engine.llama.binding import LIBRARY, lib
from llama_backend.engine.placement.device import Device
from llama_backend.errors import DeviceUnavailable


class DeviceType(IntEnum):
    """`enum ggml_backend_dev_type`."""

    CPU = 0
    GPU = 1
    IGPU = 2


def gpu_devices() -> list[Device]:
    """The GPUs in llama.cpp's order; integrated ones only where there is no other. Empty for a build without GPUs."""
    if not lib.llama_supports_gpu_offload():
        return []
    registry = Registry()
    return registry.devices(DeviceType.GPU) or registry.devices(DeviceType.IGPU)


class Registry:
    """ggml's list of devices. Its functions are looked up through libllama, as in `load_backends`."""

    def __init__(self) -> None:
        lib.llama_backend_init()
        self._library = ctypes.CDLL(str(LIBRARY))

    def devices(self, kind: DeviceType) -> list[Device]:
        """The devices of a kind. Reading the memory of a GPU initialises it, which takes some time and memory."""
        count, get = self._function("count", ctypes.c_size_t), self._function("get", ctypes.c_void_p, ctypes.c_size_t)
        kind_of = self._function("type", ctypes.c_int, ctypes.c_void_p)
        handles = [get(index) for index in range(count())]
        return [self._device(handle) for handle in handles if kind_of(handle) == kind]

    def _device(self, handle: int) -> Device:
        name, description = (self._function(what, ctypes.c_char_p, ctypes.c_void_p) for what in ("name", "description"))
        size = ctypes.POINTER(ctypes.c_size_t)
        memory = self._function("memory", None, ctypes.c_void_p, size, size)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        memory(handle, ctypes.byref(free), ctypes.byref(total))
        return Device(_text(name(handle)), _text(description(handle)), free.value, total.value)

    def _function(self, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
        function = self._library[f"ggml_backend_dev_{name}"]
        function.restype, function.argtypes = result, arguments
        return function


def usable(devices: Sequence[Device], layers: int | None, split: Sequence[float] | None, main: int | None) -> bool:
    """Whether GPUs are to be used. Raises DeviceUnavailable where a GPU was asked for that does not exist."""
    asked = bool(layers) or bool(split) or main is not None
    if asked and not devices:
        text = "a GPU was asked for, but this build of llama.cpp supports none or finds none; --gpu-layers 0 uses none"
        raise DeviceUnavailable(text)
    if main is not None and main >= len(devices):
        raise DeviceUnavailable(f"GPU {main} was asked for, but there are {len(devices)}, counted from 0")
    if split is not None and len(split) > len(devices):
        raise DeviceUnavailable(f"the model was to be split over {len(split)} GPUs, but there are {len(devices)}")
    return bool(devices) and layers != 0


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")
