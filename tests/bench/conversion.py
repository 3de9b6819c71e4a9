"""The speed of writing against `cp` on the same disk, and its memory: `python -m tests.bench.conversion FOLDER`.

The source is synthetic and has the shapes of Llama 2: 7B with a quarter of its layers, or `--size 70b` with two.
The peak of the memory is read from /proc: what the kernel reports of a child starts with its parent's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.convert.layouts import TinyLlama

SHAPES = {
    "7b": TinyLlama(layers=8, width=4096, heads=32, kv_heads=32, head_dim=128, inner=11008, vocab=32000),
    "70b": TinyLlama(layers=2, width=8192, heads=64, kv_heads=8, head_dim=128, inner=28672, vocab=32000),
}
SCRIPT = """
import os, sys, time
from pathlib import Path
from llama_convert.progress import Silent
from llama_convert.llama_checkpoint import open_checkpoint
from llama_convert.output.write_model import plan_layout, write_model
checkpoint = open_checkpoint(Path(sys.argv[1]))
os.sync()
start = time.perf_counter()
write_model(checkpoint, plan_layout(checkpoint), Path(sys.argv[2]), Silent())
os.sync()
status = Path("/proc/self/status").read_text().splitlines()
print(time.perf_counter() - start, *[line.split()[1] for line in status if line.startswith("VmHWM")])
"""


def tensors(model: TinyLlama) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all weights in the Hugging Face layout."""
    width, keys = model.width, model.kv_heads * model.head_dim
    yield "model.embed_tokens.weight", (model.vocab, width)
    for layer in range(model.layers):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", (width,)
        yield f"{prefix}.post_attention_layernorm.weight", (width,)
        for name in ("gate_proj", "up_proj"):
            yield f"{prefix}.mlp.{name}.weight", (model.inner, width)
        yield f"{prefix}.mlp.down_proj.weight", (width, model.inner)
        for name, rows in (("q_proj", width), ("k_proj", keys), ("v_proj", keys), ("o_proj", width)):
            yield f"{prefix}.self_attn.{name}.weight", (rows, width)
    yield "model.norm.weight", (width,)
    yield "lm_head.weight", (model.vocab, width)


def write_source(folder: Path, model: TinyLlama, tokenizer: Path) -> int:
    """A folder with one safetensors file of F16 noise; its bytes."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(model.config()))
    shutil.copy(tokenizer, folder / "tokenizer.model")
    header: dict[str, Any] = {}
    offset = 0
    for name, shape in tensors(model):
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    raw = json.dumps(header).encode()
    noise = np.random.default_rng(0).standard_normal(1 << 23).astype(np.float16).data.cast("B")
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for _, shape in tensors(model):
            left = 2 * int(np.prod(shape))
            while left:
                left -= file.write(noise[: min(left, len(noise))])
    return offset


def timed_copy(source: Path, target: Path) -> float:
    """Seconds of `cp` until the data are on the disk."""
    os.sync()
    start = time.perf_counter()
    subprocess.run(["cp", str(source), str(target)], check=True)
    os.sync()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SHAPES, default="7b")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokenizer", type=Path, required=True, help="any tokenizer.model")
    options = parser.parse_args()
    shape = SHAPES[options.size]
    model = TinyLlama(**{**vars(shape), "layers": options.layers or shape.layers})
    source = options.folder / "source"
    size = write_source(source, model, options.tokenizer)
    os.sync()
    for _ in range(options.rounds):
        target = options.folder / "copy"
        copied = timed_copy(source / "model.safetensors", target)
        target.unlink()
        command = [sys.executable, "-c", SCRIPT, str(source), str(options.folder / "out.gguf")]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        written, peak = float(found[0]), int(found[1]) / 1024
        (options.folder / "out.gguf").unlink()
        ratio = copied / written
        print(
            f"{size / 1e9:.2f} GB: cp {size / 1e9 / copied:.2f} GB/s, write {size / 1e9 / written:.2f} GB/s, "
            f"ratio {ratio:.2f}, peak {peak:.0f} MB"
        )
    shutil.rmtree(source)


if __name__ == "__main__":
    main()
