"""Layers and KV cells together: what is planned for GPUs that are made up is what is then made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from llama_backend.engine.placement.device import Device
from llama_backend.engine.placement.kv_size import KVSize
from llama_backend.engine.placement.model_file import ModelFile
from llama_backend.engine.placement.placement import Placement, place_on_gpus, place_on_processor
from llama_backend.errors import ModelUnreadable
from llama_backend.wire.ipc import EngineConfig
from tests.support.engine.hollow_model import HollowModel

MIB = 1 << 20
LARGE = HollowModel(kv_heads=(8,) * 16, heads=8, head_size=128, width=1024, feed_forward=2048, context=4096)
"""64 KiB of keys and values a token, twice what `width / heads` would make if that were its head size of 64."""
SMALL = HollowModel(kv_heads=(8,) * 8, heads=8, head_size=64, width=512, feed_forward=1024, context=4096)
"""16 KiB of keys and values a token."""


def gpus(*free: int) -> list[Device]:
    """GPUs with as many MiB."""
    return [Device(f"CUDA{number}", "a GPU", size * MIB, size * MIB) for number, size in enumerate(free)]


@pytest.fixture
def large(tmp_path: Path) -> Path:
    return LARGE.write(tmp_path / "large.gguf")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return SMALL.write(tmp_path / "small.gguf")


def kv_bytes(path: Path, placement: Placement, layers: int | None = None) -> int:
    """What the cells of the context take in so many layers, which is made from `placement.kv`."""
    by_layer = ModelFile(path).kv_size.bytes_by_layer(placement.kv.kv_type)
    return int(placement.kv.cells * sum(by_layer[len(by_layer) - layers :] if layers is not None else by_layer))


@pytest.mark.parametrize("free", [[8000], [4000, 4000], [16000, 500], [2000]])
@pytest.mark.parametrize(
    "config",
    [{}, {"slots": 2}, {"slots": 16}, {"slots": 4, "context": 1024}, {"kv_type": "q8_0"}, {"slots": 8, "main_gpu": 0}],
)
def test_memory_is_planned_for_the_cells_that_are_made(large: Path, free: list[int], config: dict[str, Any]) -> None:
    placement = place_on_gpus(EngineConfig(path=str(large), **config), gpus(*free))
    assert placement.offload is not None
    assert placement.offload.is_whole
    assert sum(share.kv for share in placement.offload.shares) == kv_bytes(large, placement)


def test_cells_are_counted_by_the_gpus_that_are_used(large: Path) -> None:
    """A quarter of 8,000 MiB holds 32,000 cells; that of 16,000 MiB would hold all the 65,536 that were asked for."""
    config = EngineConfig(path=str(large), slots=16, main_gpu=1)
    placement = place_on_gpus(config, gpus(8000, 8000))
    assert (placement.kv.cells, placement.kv.unified) == (32_000, True)


def test_the_draft_model_has_its_share_of_the_memory(large: Path, small: Path) -> None:
    """With 80 instead of 64 KiB a token a quarter of 8,000 MiB holds 25,600 cells, to a multiple of 256."""
    config = EngineConfig(path=str(large), slots=16, draft_model=str(small))
    placement = place_on_gpus(config, gpus(8000))
    assert placement.kv.cells == 25_600
    assert placement.offload is not None
    assert placement.offload.draft_gpu == 0
    assert placement.offload.shares[0].kv == kv_bytes(large, placement)


def test_a_draft_model_that_is_not_used_has_none(large: Path) -> None:
    config = EngineConfig(path=str(large), slots=16, draft_model="/nowhere", speculation=False)
    assert place_on_gpus(config, gpus(8000)).kv.cells == 32_000


def test_where_no_layer_fits_cells_are_laid_out_for_main_memory(large: Path) -> None:
    config = EngineConfig(path=str(large), slots=2)
    placement = place_on_gpus(config, gpus(20))
    assert placement.offload is not None
    assert placement.offload.layers == 0
    file = ModelFile(large)
    assert placement.kv == place_on_processor(config, file.context_trained, [file.kv_size]).kv
    assert (placement.kv.batch, placement.kv.ubatch) == (512, 128)


def test_in_main_memory_both_models_count(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[place_on_processor.__module__]
    monkeypatch.setattr(module, "available_memory", lambda: 4 * 4096 * 1024)
    config = EngineConfig(path="x", slots=8, context=256)
    sizes = [KVSize((512, 512)), KVSize((512,))]
    assert place_on_processor(config, 4096, sizes[:1]).kv.cells == 8 * 256
    assert place_on_processor(config, 4096, sizes).kv.cells == 1280
    assert place_on_processor(config, 4096, sizes).offload is None


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"nothing at all")
    with pytest.raises(ModelUnreadable):
        place_on_gpus(EngineConfig(path=str(path)), gpus(8000))
