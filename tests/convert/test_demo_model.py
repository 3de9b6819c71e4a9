"""The demo model, taken apart into a Hugging Face folder, comes back as it was."""

from __future__ import annotations

from pathlib import Path

from llama_convert.gguf.reader import read_gguf
from tests.support.convert import demo, native
from tests.support.convert.single_file import write_gguf

_IGNORED = ("general.", "tokenizer.ggml.add_eos_token")


def test_the_demo_model_comes_back(tmp_path: Path, demo_model: Path) -> None:
    original = read_gguf(demo_model)
    wanted = demo.write_demo_folder(tmp_path / "hf", original)
    path = tmp_path / "again.gguf"
    write_gguf(tmp_path / "hf", path)
    again = read_gguf(path)

    assert again.tensors.keys() == wanted.keys()
    for name, array in wanted.items():
        stored = array if array.ndim > 1 else array.astype("f4")
        assert again.data(name).tobytes() == stored.tobytes(), name
    kept = {key: value for key, value in original.metadata.items() if not key.startswith(_IGNORED)}
    assert {key: value for key, value in again.metadata.items() if not key.startswith(_IGNORED)} == kept

    with native.loaded(path, vocab_only=True) as model:
        tokens = native.tokenize(model, "The capital of France is")
    assert native.greedy(path, tokens, 8) == native.greedy(demo_model, tokens, 8)
