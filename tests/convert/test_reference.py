"""Against llama.cpp's own converter: the same metadata and the same bytes. Opt-in, since that one needs PyTorch.

`LLAMA_CPP_SOURCE` names an unpacked source of the pinned llama-cpp-python, `LLAMA_CPP_PYTHON` an interpreter with
torch, transformers and sentencepiece (without it, this one).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import tokenizers

from llama_convert.gguf.reader import GGUFFile, read_gguf
from llama_convert.vocab.load import load_hf_vocabulary
from tests.convert.vocab.test_vocabularies import LLAMA3_REGEX, disagreements, write_vocabulary
from tests.support.convert import demo, native, spm_json, spm_proto
from tests.support.convert.corpus import strings
from tests.support.convert.layouts import TinyLlama, random_weights, write_hf_folder, write_torch_file
from tests.support.convert.single_file import write_gguf

SOURCE = os.environ.get("LLAMA_CPP_SOURCE")
pytestmark = [
    pytest.mark.skipif(not SOURCE, reason="LLAMA_CPP_SOURCE names no source of llama-cpp-python"),
    pytest.mark.timeout(600),
]
TREE = Path(SOURCE or ".") / "vendor" / "llama.cpp"
DESCRIPTIVE = ("general.basename", "general.finetune", "general.version", "general.organization", "general.size_label")
"""Guesses that the reference makes from the folder's name."""
IMPLIED = {"llama.attention.key_length": (None, 64), "llama.attention.value_length": (None, 64)}
"""What the reference writes down although it equals width / heads, since transformers fills it in."""
SPELT_OUT = {"tokenizer.ggml.add_eos_token": False, "tokenizer.ggml.add_space_prefix": False}
"""What we write down although llama.cpp would assume it."""
CASE_END = "\n__ggml_vocab_test__\n"


def reference(folder: Path, path: Path) -> GGUFFile:
    """What the reference converter makes of a folder."""
    python = os.environ.get("LLAMA_CPP_PYTHON", sys.executable)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [python, str(TREE / "convert_hf_to_gguf.py"), str(folder), "--outfile", str(path), "--outtype", "auto"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return read_gguf(path)


def ours(folder: Path, path: Path) -> GGUFFile:
    write_gguf(folder, path)
    return read_gguf(path)


def differences(found: GGUFFile, wanted: GGUFFile) -> dict[str, Any]:
    """Metadata that differs, by key: ours and the reference's."""
    keys = sorted({*found.metadata, *wanted.metadata} - set(DESCRIPTIVE))
    pairs = {key: (found.get(key), wanted.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def assert_same_tensors(found: GGUFFile, wanted: GGUFFile) -> None:
    assert found.tensors.keys() == wanted.tensors.keys()
    for name, tensor in wanted.tensors.items():
        assert found.tensors[name].info == tensor.info, name
        if name == "rope_freqs.weight":
            assert np.allclose(found.data(name).view(np.float32), wanted.data(name).view(np.float32), rtol=1e-6)
        else:
            assert np.array_equal(found.data(name), wanted.data(name)), name


def cases(name: str) -> tuple[list[str], list[list[int]]]:
    """Texts, and how the reference cuts them."""
    path = TREE / "models" / f"ggml-vocab-{name}.gguf"
    texts = path.with_name(f"{path.name}.inp").read_text("utf-8").split(CASE_END)
    lines = path.with_name(f"{path.name}.out").read_text("utf-8").split("\n")
    return texts, [[int(token) for token in line.split()] for line in lines]


@pytest.fixture
def folder(tmp_path: Path, spm_model: Path) -> Path:
    """A folder of the SentencePiece kind, with everything that becomes metadata."""
    model = TinyLlama(scaling={"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64})
    weights = random_weights(model, dtype=np.float16)
    made = write_hf_folder(tmp_path / "tiny-model", model, weights, torch_dtype="float16")
    shutil.copy(spm_model, made)
    decoder = {
        "0": {"content": "<unk>", "special": True},
        "1": {"content": "<s>", "special": True},
        "2": {"content": "</s>", "special": True},
        "1000": {"content": "<|im_end|>", "special": False},
        "1001": {"content": "▁tool", "special": False},
    }
    config = {
        "added_tokens_decoder": decoder,
        "add_bos_token": True,
        "add_eos_token": False,
        "chat_template": "{{ x }}",
    }
    texts = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "unk_token": "<unk>"}
    (made / "tokenizer_config.json").write_text(json.dumps(config | texts))
    (made / "tokenizer.json").write_text(json.dumps(spm_json.tokenizer_json(spm_model)))
    (made / "generation_config.json").write_text(json.dumps({"temperature": 0.6, "top_p": 0.9, "top_k": 40}))
    card = "---\nlicense: llama2\nlanguage:\n- en\ntags:\n- test\npipeline_tag: text-generation\n---\n"
    (made / "README.md").write_text(card)
    return made


def test_a_sentencepiece_model_equals_the_reference(folder: Path, tmp_path: Path) -> None:
    found, wanted = ours(folder, tmp_path / "ours.gguf"), reference(folder, tmp_path / "theirs.gguf")
    assert_same_tensors(found, wanted)
    assert differences(found, wanted) == {}


def test_the_demo_model_equals_the_reference(tmp_path: Path, demo_model: Path) -> None:
    demo.write_demo_folder(tmp_path / "smollm2", read_gguf(demo_model))
    found = ours(tmp_path / "smollm2", tmp_path / "ours.gguf")
    wanted = reference(tmp_path / "smollm2", tmp_path / "theirs.gguf")
    assert_same_tensors(found, wanted)
    different = differences(found, wanted)
    assert {key: pair for key, pair in different.items() if pair[1] is not None} == IMPLIED
    assert {key: pair[0] for key, pair in different.items() if pair[1] is None} == SPELT_OUT


def test_pytorch_files_equal_the_reference(folder: Path, tmp_path: Path) -> None:
    """Files that PyTorch itself has written are read alike."""
    (folder / "model.safetensors").unlink()
    model = TinyLlama()
    write_torch_file(folder / "pytorch_model.bin", random_weights(model, dtype=np.float16))
    python = os.environ.get("LLAMA_CPP_PYTHON", sys.executable)
    script = "import sys, torch; torch.save(torch.load(sys.argv[1], weights_only=True), sys.argv[1])"
    subprocess.run([python, "-c", script, str(folder / "pytorch_model.bin")], check=True)
    found, wanted = ours(folder, tmp_path / "ours.gguf"), reference(folder, tmp_path / "theirs.gguf")
    assert_same_tensors(found, wanted)


@pytest.mark.parametrize("source", ["tokenizer.model", "tokenizer.json"])
def test_llama2_cases_are_cut_as_the_reference_cuts_them(tmp_path: Path, source: str) -> None:
    original = read_gguf(TREE / "models" / "ggml-vocab-llama-spm.gguf")
    (tmp_path / "tokenizer.model").write_bytes(spm_proto.model_of(original))
    if source == "tokenizer.json":
        (tmp_path / source).write_text(json.dumps(spm_json.tokenizer_json(tmp_path / "tokenizer.model")))
        (tmp_path / "tokenizer.model").unlink()
    vocabulary, _ = load_hf_vocabulary(tmp_path, {})
    if source == "tokenizer.model":
        assert vocabulary.tokens == original.get("tokenizer.ggml.tokens")
        assert vocabulary.scores == original.get("tokenizer.ggml.scores")
        assert vocabulary.types == original.get("tokenizer.ggml.token_type")
    path = write_vocabulary(tmp_path / "vocabulary.gguf", vocabulary)
    texts, wanted = cases("llama-spm")
    assert len(wanted) == 47
    with native.loaded(path, vocab_only=True) as model:
        assert [native.tokenize(model, text) for text in texts] == wanted


def test_llama3_cases_are_cut_as_the_reference_cuts_them(tmp_path: Path) -> None:
    original = read_gguf(TREE / "models" / "ggml-vocab-llama-bpe.gguf")
    described = demo.tokenizer_json(original)
    split = {"type": "Split", "pattern": {"Regex": LLAMA3_REGEX}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    described["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    described["model"]["ignore_merges"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    vocabulary, _ = load_hf_vocabulary(tmp_path, {"bos_token_id": 128000, "eos_token_id": [128001, 128009]})
    assert vocabulary.pre == "llama-bpe"
    assert vocabulary.tokens == original.get("tokenizer.ggml.tokens")
    assert vocabulary.merges == original.get("tokenizer.ggml.merges")
    assert vocabulary.special == {"bos": 128000, "eos": 128001}
    path = write_vocabulary(tmp_path / "vocabulary.gguf", vocabulary)
    texts, wanted = cases("llama-bpe")
    with native.loaded(path, vocab_only=True) as model:
        assert [native.tokenize(model, text) for text in texts] == wanted
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    library.encode_special_tokens = True
    assert disagreements(path, lambda text: library.encode(text).ids, list(strings(10_000, seed=3))) == []


def test_llama2_cuts_generated_strings_as_sentencepiece_does(tmp_path: Path) -> None:
    original = read_gguf(TREE / "models" / "ggml-vocab-llama-spm.gguf")
    (tmp_path / "tokenizer.model").write_bytes(spm_proto.model_of(original))
    library = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(spm_json.tokenizer_json(tmp_path / "tokenizer.model")))
    (tmp_path / "tokenizer.model").unlink()
    vocabulary, _ = load_hf_vocabulary(tmp_path, {})
    path = write_vocabulary(tmp_path / "vocabulary.gguf", vocabulary)
    assert disagreements(path, library.encode, list(strings(10_000, seed=3))) == []
