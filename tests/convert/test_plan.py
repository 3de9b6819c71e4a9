"""What a plan says about memory and the disk."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llama_convert.convert import ConvertOptions, convert, plan_conversion
from llama_convert.gguf.reader import GGUFFile, read_gguf
from llama_convert.llama_checkpoint import open_checkpoint
from llama_convert.plan import run_memory
from llama_convert.progress import Silent
from tests.support.convert.layouts import TinyLlama, random_weights, write_hf_folder


def kv_bytes(file: GGUFFile) -> int:
    """F16 keys and values of a token, as a reader of the file counts them."""
    width = file.get("llama.embedding_length") // file.get("llama.attention.head_count")
    lengths = [file.get(f"llama.attention.{name}_length", width) for name in ("key", "value")]
    return 2 * int(file.get("llama.block_count")) * int(file.get("llama.attention.head_count_kv")) * int(sum(lengths))


@pytest.mark.parametrize(
    ("model", "extra"),
    [
        (TinyLlama(layers=2), {}),
        (TinyLlama(layers=2, head_dim=64), {"head_dim": 64}),
        (TinyLlama(layers=2, head_dim=16, kv_heads=4), {"head_dim": 16}),
    ],
    ids=["width / heads", "larger heads", "smaller heads"],
)
def test_the_kv_cache_has_the_heads_and_lengths_that_the_file_names(
    tmp_path: Path, spm_model: Path, model: TinyLlama, extra: dict[str, int]
) -> None:
    folder = write_hf_folder(tmp_path / "tiny", model, random_weights(model, dtype=np.float16), **extra)
    shutil.copy(spm_model, folder)
    product = convert(folder, ConvertOptions(tmp_path / "out", threads=1), Silent()).products[0]
    config = open_checkpoint(folder).config
    wanted = kv_bytes(read_gguf(product.path))
    assert config.kv_bytes_per_token == wanted
    longer = replace(config, context_length=config.context_length + 100)
    assert run_memory(longer, 0) - run_memory(config, 0) == 100 * wanted
    assert plan_conversion(folder, ConvertOptions(tmp_path / "out")).models[0].run_memory > product.nbytes
