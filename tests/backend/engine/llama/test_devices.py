"""ggml's devices, of which every build has the processor."""

from __future__ import annotations

import pytest

from llama_backend.engine.llama.binding import lib
from llama_backend.engine.llama.devices import DeviceType, Registry, gpu_devices


def test_the_processor_is_a_device_with_memory() -> None:
    (cpu,) = Registry().devices(DeviceType.CPU)
    assert cpu.name == "CPU"
    assert cpu.description
    assert cpu.total > 1 << 28


def test_there_are_gpus_only_where_llama_cpp_says_so() -> None:
    if lib.llama_supports_gpu_offload():
        pytest.skip("there is a GPU")
    assert gpu_devices() == []
    assert Registry().devices(DeviceType.GPU) == []
