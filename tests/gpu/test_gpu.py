"""Computing on a GPU: skipped where llama.cpp has none.

Build with `CMAKE_ARGS="-DGGML_CUDA=on -DLLAVA_BUILD=OFF" pip install --force-reinstall --no-deps --no-binary :all:
llama-cpp-python==0.3.36`, then `pytest -m gpu`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llama_backend.engine.llama.binding import lib
from llama_backend.engine.llama.devices import gpu_devices
from llama_backend.engine.llama.log import LlamaLog
from llama_backend.engine.llama.model import Model
from llama_backend.engine.llama.runner import ModelRunner
from llama_backend.engine.placement.kv_plan import KVPlan
from llama_backend.engine.placement.model_file import ModelFile
from llama_backend.engine.placement.offload import ContextSize, plan_offload
from llama_backend.wire.api import SamplingParams
from llama_backend.wire.ipc import EngineConfig, Failed, Ready, Submit
from tests.support.engine.engine_process import EngineProcess

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not lib.llama_supports_gpu_offload(), reason="llama.cpp has no GPU here"),
]
GREEDY = SamplingParams(temperature=0, max_tokens=24)
LAYERS = 31
"""Of the demo model, with the output."""
OWN_MEMORY = 600 << 20
"""What a GPU's own libraries take when they are first used."""
Start = Callable[..., EngineProcess]


@pytest.fixture
def start(demo_model: Path) -> Iterator[Start]:
    started = []

    def start_engine(**config: Any) -> EngineProcess:
        started.append(EngineProcess(EngineConfig(path=str(demo_model), context=512, **config)))
        return started[-1]

    yield start_engine
    for engine in started:
        engine.close()


def answer(engine: EngineProcess) -> str:
    engine.send(Submit(id=1, sampling=GREEDY, prompt="The capital of France is"))
    return engine.answer(1)[0]


def test_a_gpu_has_memory() -> None:
    for device in gpu_devices():
        assert 0 < device.free <= device.total
        assert device.name
        assert device.description


def test_all_layers_of_a_small_model_fit(start: Start) -> None:
    engine = start()
    ready = engine.wait_for(Ready)
    assert ready.tuning is not None
    assert (ready.gpu_layers, ready.tuning.layers, ready.tuning.gpu_layers_fixed) == (LAYERS, LAYERS, False)
    assert sum(gpu.layers for gpu in ready.tuning.gpus) == LAYERS
    assert answer(engine).startswith(" Paris")


@pytest.mark.parametrize("layers", [0, 1, 15, -1])
def test_layers_that_were_asked_for(start: Start, layers: int) -> None:
    engine = start(gpu_layers=layers)
    assert engine.wait_for(Ready).gpu_layers == (LAYERS if layers < 0 else layers)
    assert answer(engine).startswith(" Paris")


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
def test_types_of_keys_and_values(start: Start, kv_type: str) -> None:
    engine = start(kv_type=kv_type)
    tuning = engine.wait_for(Ready).tuning
    assert tuning is not None
    assert (tuning.kv_type, tuning.flash_attention) == (kv_type, True)
    assert answer(engine).startswith(" Paris")


def test_one_gpu_by_its_number(start: Start) -> None:
    engine = start(main_gpu=0, gpu_layers=-1)
    tuning = engine.wait_for(Ready).tuning
    assert tuning is not None
    assert len(tuning.gpus) == 1
    assert answer(engine).startswith(" Paris")


def test_a_gpu_of_a_number_that_is_not_there(start: Start) -> None:
    failed = start(main_gpu=15).wait_for(Failed)
    assert failed.code == "device_unavailable"


def test_an_answer_is_whole_though_its_pieces_are_sent_late(start: Start) -> None:
    late, here = start(gpu_layers=-1), start(gpu_layers=0)
    for engine in (late, here):
        engine.wait_for(Ready)
    assert answer(late)[:20] == answer(here)[:20]


def test_the_estimate_holds(demo_model: Path) -> None:
    """What loading takes from the GPUs is no more than was planned, besides what their libraries take."""
    before = gpu_devices()
    plan = KVPlan(4, 4096, 4096, True, batch=2048, ubatch=512)
    size = ContextSize(plan.cells, plan.ubatch, plan.slots)
    offload = plan_offload(ModelFile(demo_model).shape("f16"), size, before, None)
    model = Model(str(demo_model), offload, LlamaLog(lambda line: None))
    runner = ModelRunner(model, plan, threads=1)
    runner.warm_up(0)
    taken = sum(device.free for device in before) - sum(device.free for device in gpu_devices())
    planned = sum(share.weights + share.kv + share.compute for share in offload.shares)
    runner.close()
    lib.llama_model_free(model.handle)
    assert taken <= planned + OWN_MEMORY * len(before)
