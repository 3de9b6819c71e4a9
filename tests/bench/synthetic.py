"""A file of Llama 2's shapes with random weights, and how it runs: what a real 7B costs, where none can be had.

`python -m tests.bench.synthetic FILE.gguf` writes 3.8 GB where the file is missing, and measures it beside llama-bench
and llama-server where LLAMA_REFERENCE names them. Shapes: Llama 2 (https://arxiv.org/abs/2307.09288), 7B.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llama_convert.gguf.tensor_types import TensorType
from llama_convert.gguf.values import Metadata, f32, f32s, i32s, string, strings, u32
from llama_convert.gguf.writer import GGUFWriter, TensorInfo
from tests.bench.load import run_load
from tests.bench.programs import Program, free_port, llama_server, ours, reference_folder, running

CONTEXT, SLOTS, THREADS = 4096, 4, 2
_BLOCK_BYTES, _SCALE = 18, 0.0043
"""Of Q4_0: 32 values of 4 bits and their scale, which makes weights of a standard deviation of 0.02."""
_POOL_BLOCKS = 1 << 20


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama."""

    layers: int = 32
    width: int = 4096
    feed_forward: int = 11008
    heads: int = 32
    vocabulary: int = 32000
    context: int = 4096

    def tensors(self) -> Iterator[TensorInfo]:
        """In the order of the file; all but the norms are Q4_0."""
        yield self._matrix("token_embd", self.vocabulary, self.width)
        for layer in range(self.layers):
            yield from self._layer(f"blk.{layer}")
        yield self._norm("output_norm")
        yield self._matrix("output", self.vocabulary, self.width)

    def _layer(self, name: str) -> Iterator[TensorInfo]:
        yield self._norm(f"{name}.attn_norm")
        for part in ("q", "k", "v", "output"):
            yield self._matrix(f"{name}.attn_{part}", self.width, self.width)
        yield self._norm(f"{name}.ffn_norm")
        yield self._matrix(f"{name}.ffn_gate", self.feed_forward, self.width)
        yield self._matrix(f"{name}.ffn_up", self.feed_forward, self.width)
        yield self._matrix(f"{name}.ffn_down", self.width, self.feed_forward)

    def _norm(self, name: str) -> TensorInfo:
        return TensorInfo(f"{name}.weight", (self.width,), TensorType.F32)

    @staticmethod
    def _matrix(name: str, rows: int, columns: int) -> TensorInfo:
        return TensorInfo(f"{name}.weight", (rows, columns), TensorType.Q4_0)

    def metadata(self) -> Metadata:
        """With a vocabulary of bytes and of words that are numbers."""
        special, plain = ["<unk>", "<s>", "</s>"], [f"<0x{byte:02X}>" for byte in range(256)]
        words = [f"▁w{number}" for number in range(self.vocabulary - len(special) - len(plain))]
        kinds = [2, 3, 3] + [6] * len(plain) + [1] * len(words)
        return {
            "general.architecture": string("llama"),
            "general.name": string("synthetic"),
            "general.file_type": u32(2),
            "llama.block_count": u32(self.layers),
            "llama.context_length": u32(self.context),
            "llama.embedding_length": u32(self.width),
            "llama.feed_forward_length": u32(self.feed_forward),
            "llama.attention.head_count": u32(self.heads),
            "llama.attention.head_count_kv": u32(self.heads),
            "llama.attention.layer_norm_rms_epsilon": f32(1e-5),
            "llama.rope.dimension_count": u32(self.width // self.heads),
            "llama.vocab_size": u32(self.vocabulary),
            "tokenizer.ggml.model": string("llama"),
            "tokenizer.ggml.tokens": strings(special + plain + words),
            "tokenizer.ggml.scores": f32s([0.0] * (len(special) + len(plain)) + [-1.0 * n for n in range(len(words))]),
            "tokenizer.ggml.token_type": i32s(kinds),
            "tokenizer.ggml.bos_token_id": u32(1),
            "tokenizer.ggml.eos_token_id": u32(2),
        }


def write(path: Path, shape: Shape) -> None:
    """Writes the file; a part of it under another name until it is whole."""
    rng = np.random.default_rng(7)
    pool = rng.integers(0, 256, (_POOL_BLOCKS, _BLOCK_BYTES), dtype=np.uint8)
    pool[:, :2] = np.frombuffer(np.float16(_SCALE).tobytes(), np.uint8)
    tensors, part = list(shape.tensors()), path.with_suffix(".part")
    with GGUFWriter(part, shape.metadata(), tensors) as file:
        for tensor in tensors:
            file.begin(tensor.name)
            for data in _data(tensor, pool, rng):
                file.write(data.data.cast("B"))
            file.end()
        file.finish()
    part.rename(path)


def _data(tensor: TensorInfo, pool: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Norms of 1; other tensors are pieces of `pool` from random places on."""
    if tensor.kind is TensorType.F32:
        yield np.ones(tensor.elements, np.float32)
        return
    left = tensor.nbytes // _BLOCK_BYTES
    while left:
        start = int(rng.integers(0, len(pool) // 2))
        piece = pool[start : start + min(left, len(pool) // 2)]
        left -= len(piece)
        yield piece


def measure(model: Path, reference: Path | None) -> Iterator[str]:
    """A row for each program: seconds to load, resident memory, tokens per second of 1 and 4 streams."""
    makers: list[Callable[[int], Program]] = [lambda port: ours(model, SLOTS, CONTEXT // SLOTS, THREADS, port)]
    if (folder := reference) is not None:
        yield f"llama-bench      {_llama_bench(folder, model)}"
        makers.append(lambda port: llama_server(folder, model, SLOTS, CONTEXT // SLOTS, THREADS, port))
    for make in makers:
        port = free_port()
        program, begin = make(port), time.perf_counter()
        with running(program, port) as url:
            loaded = time.perf_counter() - begin
            rates = [run_load(url, streams, streams, random.randrange(2**31)).tokens_per_second for streams in (1, 4)]
            memory = _memory(port)
        yield (
            f"{program.name:16} ready after {loaded:.1f} s, {memory / 2**30:.1f} GiB resident, "
            f"1 stream {rates[0]:.2f} tokens/s, 4 streams {rates[1]:.2f}"
        )


def _llama_bench(folder: Path, model: Path) -> str:
    options = ["-m", str(model), "-t", str(THREADS), "-p", "64", "-n", "16", "-r", "1", "-o", "json"]
    rows = json.loads(subprocess.run([str(folder / "llama-bench"), *options], check=True, capture_output=True).stdout)
    return ", ".join(f"{'prompt' if row['n_prompt'] else 'generation'} {row['avg_ts']:.2f} tokens/s" for row in rows)


def _memory(port: int) -> int:
    """Bytes resident in all processes of the server on a port."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/status") as answer:
            return int(json.load(answer)["rss"])
    except urllib.error.HTTPError:
        pids = subprocess.run(
            ["pgrep", "-f", f"port {port}"], check=True, capture_output=True, text=True
        ).stdout.split()
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
        return sum(pages) * 4096


def main(path: Path) -> None:
    if not path.exists():
        write(path, Shape())
    for row in measure(path, reference_folder()):
        print(row, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
