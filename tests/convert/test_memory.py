"""The converter's own memory does not grow with the model."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

from tests.bench.conversion import SCRIPT, tensors
from tests.support.convert.layouts import TinyLlama

MODEL = TinyLlama(layers=1, width=8192, heads=64, kv_heads=8, head_dim=128, inner=2048, vocab=32000, tied=True)
"""Llama 2 70B's embedding and attention, whose largest tensor alone has 524 MB, with less between them."""


def test_70b_shapes_take_less_than_300_mb(tmp_path: Path, spm_model: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    shutil.copy(spm_model, folder)
    (folder / "config.json").write_text(json.dumps(MODEL.config()))
    header, offset = {}, 0
    for name, shape in tensors(MODEL):
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        if name != "lm_head.weight":
            header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, offset + size]}
            offset += size
    raw = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + offset)
    command = [sys.executable, "-c", SCRIPT, str(folder), str(tmp_path / "out.gguf")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert int(done.stdout.split()[1]) < 300 * 1024
    (tmp_path / "out.gguf").unlink()
