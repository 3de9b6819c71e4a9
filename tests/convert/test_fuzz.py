"""Whatever stands in a file, the readers answer with an error of ours or with tensors, and with nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from llama_convert.checkpoint.safetensors import read_safetensors
from llama_convert.checkpoint.torch_file import read_torch_file
from llama_convert.errors import ConvertError
from llama_convert.gguf.reader import read_gguf
from llama_convert.gguf.types import TensorType
from llama_convert.gguf.values import f32s, i32s, string, strings, u32
from llama_convert.gguf.writer import GGUFWriter, TensorInfo
from llama_convert.quant.imatrix import read_imatrix
from llama_convert.vocab.load import load_hf_vocabulary
from llama_convert.vocab.sentencepiece import read_sentencepiece
from tests.convert import spm_json
from tests.convert.layouts import write_safetensors, write_torch_file

ROUNDS = 400
WEIGHTS = {"a.weight": np.ones((4, 8), np.float16), "b.weight": np.ones(3, np.float16)}


def mutated(raw: bytes, source: random.Random, head: int) -> bytes:
    """`raw` with some bytes of its first `head` changed, cut out or doubled, or cut short."""
    out = bytearray(raw)
    for _ in range(source.randrange(1, 5)):
        at = source.randrange(min(head, len(out)) or 1)
        kind = source.randrange(4)
        if kind == 0:
            out[at : at + 1] = source.randbytes(1)
        elif kind == 1:
            del out[at : at + source.randrange(1, 9)]
        elif kind == 2:
            out[at:at] = out[at : at + source.randrange(1, 9)]
        else:
            out[at : at + 1] = bytes([out[at] ^ 1 << source.randrange(8)]) if at < len(out) else b""
    return bytes(out[: source.randrange(len(out))] if source.random() < 0.1 and out else out)


def survive(path: Path, raw: bytes, read: Callable[[Path], object], head: int = 1 << 20) -> None:
    source = random.Random(14)
    for _ in range(ROUNDS):
        path.write_bytes(mutated(raw, source, head))
        with suppress(ConvertError):
            read(path)


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, WEIGHTS)
    survive(path, path.read_bytes(), read_safetensors)


def test_pytorch_files(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    write_torch_file(path, WEIGHTS)
    survive(path, path.read_bytes(), read_torch_file)


def test_gguf(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    metadata = {"a": string("x"), "b": u32(3), "c": strings(["y", "z"]), "d": f32s([1.0]), "e": i32s([1, 2])}
    with GGUFWriter(path, metadata, [TensorInfo("t.weight", (4, 8), TensorType.F32)]) as writer:
        writer.begin("t.weight")
        writer.write(memoryview(bytes(128)))
        writer.end()
        writer.finish()
    survive(path, path.read_bytes(), read_gguf)


@pytest.mark.parametrize("kind", [b"GGUF", b""])
def test_importance_matrices(tmp_path: Path, kind: bytes) -> None:
    raw = kind + b"\x01\0\0\0\x01\0\0\0a\x01\0\0\0\x02\0\0\0" + bytes(8)
    survive(tmp_path / "imatrix", raw, lambda path: read_imatrix(path, {"a": (4, 2)}))


def test_sentencepiece_models(tmp_path: Path, spm_model: Path) -> None:
    survive(tmp_path / "tokenizer.model", spm_model.read_bytes(), read_sentencepiece)


def test_tokenizer_json(tmp_path: Path, spm_model: Path) -> None:
    raw = json.dumps(spm_json.tokenizer_json(spm_model)).encode()
    survive(tmp_path / "tokenizer.json", raw, lambda path: load_hf_vocabulary(path.parent, {}), head=2000)
