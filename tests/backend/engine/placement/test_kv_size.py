"""What a KV cell takes: by a header, by a loaded model, and in llama.cpp itself."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llama_backend.engine.llama.draft_runner import DraftRunner
from llama_backend.engine.llama.log import LlamaLog
from llama_backend.engine.llama.model import Model
from llama_backend.engine.placement.kv_plan import KVPlan
from llama_backend.engine.placement.kv_size import KVSize
from llama_backend.engine.placement.model_file import ModelFile
from llama_backend.engine.speculation.draft_model import Chunk
from llama_backend.errors import ModelUnreadable
from llama_backend.models.hyperparameters import Hyperparameters
from tests.support.engine.hollow_model import HollowModel
from tests.support.gguf_files import Array, gguf_with_tensors

LLAMA_7B = {"block_count": 32, "embedding_length": 4096, "attention.head_count": 32}
SMALL = {"block_count": 2, "embedding_length": 64, "attention.head_count": 4}
CELL_BYTES = 12
"""What llama.cpp writes of a cell to a state beside keys and values: its position, and the sequence that it is of."""


def size_of(header: dict[str, Any]) -> KVSize:
    return KVSize.of(Hyperparameters(header.get))


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ({}, (2 * 64, 2 * 64)),
        ({"attention.head_count_kv": 2}, (2 * 32, 2 * 32)),
        ({"attention.head_count_kv": 2, "attention.key_length": 32}, (2 * 32 + 2 * 16,) * 2),
        ({"attention.head_count_kv": 2, "attention.value_length": 8}, (2 * 16 + 2 * 8,) * 2),
        ({"attention.head_count_kv": 1, "attention.key_length": 192, "attention.value_length": 128}, (320, 320)),
        ({"attention.head_count_kv": (4, 1)}, (2 * 64, 2 * 16)),
        ({"attention.head_count_kv": (0, 2), "attention.key_length": 32}, (0, 2 * 32 + 2 * 16)),
        ({"attention.head_count": (4, 8)}, (2 * 64, 2 * 64)),
        ({"attention.head_count": 0, "attention.head_count_kv": 0}, (0, 0)),
        ({"block_count": 0}, ()),
    ],
)
def test_numbers_of_a_token(header: dict[str, Any], values: tuple[int, ...]) -> None:
    assert size_of(SMALL | header).values == values


def test_bytes_of_a_token() -> None:
    size = size_of(LLAMA_7B)
    assert size.bytes_per_token("f16") == 512 * 1024
    assert size.bytes_per_token("q8_0") == 512 * 1024 * 34 // 64
    assert size.bytes_by_layer("q4_0") == (16 * 1024 * 18 / 64,) * 32


def test_a_file_says_it_by_layer(tmp_path: Path) -> None:
    numbers = SMALL | {"attention.head_count_kv": Array(5, [4, 1])}
    metadata = {"general.architecture": "llama", **{f"llama.{key}": value for key, value in numbers.items()}}
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_with_tensors(metadata, {"blk.0.a": 32}))
    assert ModelFile(path).kv_size.values == (2 * 64, 2 * 16)


@pytest.mark.parametrize(
    "shape",
    [
        HollowModel(),
        HollowModel(head_size=64),
        HollowModel("deci", kv_heads=(1, 4, 2)),
        HollowModel("deci", kv_heads=(1, 4, 2), head_size=32),
    ],
    ids=["usual", "explicit head size", "heads by layer", "both"],
)
def test_it_is_what_llama_cpp_takes(shape: HollowModel, tmp_path: Path, llama_log: LlamaLog) -> None:
    """By how much a state grows with each token."""
    path = shape.write(tmp_path / "m.gguf")
    model = Model(str(path), None, llama_log)
    values = tuple(2 * heads * shape.head_size for heads in shape.kv_heads)
    assert model.kv_size.values == ModelFile(path).kv_size.values == values
    with closing(DraftRunner(model, KVPlan(1, 256, 256, True), lambda: 1, model.vocab.size)) as runner:
        grown = state_bytes(runner, 17) - state_bytes(runner, 1)
    assert grown == 16 * (model.kv_size.bytes_per_token("f16") + CELL_BYTES)


def test_a_header_that_cannot_be_read_again_does_not_refuse_a_loaded_model(
    tmp_path: Path, llama_log: LlamaLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = HollowModel("deci", kv_heads=(1, 4, 2))
    model = Model(str(shape.write(tmp_path / "m.gguf")), None, llama_log)

    def refuse(path: str) -> None:
        raise ModelUnreadable(f"{path}: too many keys")

    monkeypatch.setattr("llama_backend.engine.llama.model.read_metadata", refuse)
    assert len(model.kv_size.values) == len(shape.kv_heads)


def state_bytes(runner: DraftRunner, tokens: int) -> int:
    """The size of the state of as many tokens."""
    runner.likeliest([Chunk(0, 0, [5] * tokens)])
    state = runner.dump(0)
    runner.remove(0, 0)
    return len(state or b"")
