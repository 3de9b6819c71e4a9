"""The demo model, loaded once, and the vocabularies of llama.cpp's own tests where they are at hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_backend.engine.llama.binding import lib
from llama_backend.engine.llama.log import LlamaLog
from llama_backend.engine.llama.model import Model
from llama_backend.engine.llama.vocab_reader import VocabReader
from llama_backend.engine.prompt.vocab import Vocab


@pytest.fixture(scope="session")
def llama_log() -> LlamaLog:
    return LlamaLog(lambda line: None)


@pytest.fixture(scope="session")
def model(demo_model: Path, llama_log: LlamaLog) -> Model:
    return Model(str(demo_model), None, llama_log)


@pytest.fixture(scope="session")
def vocabularies() -> Path:
    """The folder of vocabulary files in an unpacked source archive of llama-cpp-python."""
    source = os.environ.get("LLAMA_CPP_SOURCE")
    if not source:
        pytest.skip("LLAMA_CPP_SOURCE names no unpacked source archive of llama-cpp-python")
    return Path(source) / "vendor/llama.cpp/models"


def load_vocab(path: Path, space_prefix: bool) -> tuple[int, Vocab]:
    """A model's handle without weights, and its vocabulary."""
    params = lib.llama_model_default_params()
    params.vocab_only = True
    handle = lib.llama_model_load_from_file(str(path).encode(), params)
    assert handle, path
    return handle, VocabReader(lib.llama_model_get_vocab(handle)).read(space_prefix)


@pytest.fixture(scope="session")
def llama2_vocab(vocabularies: Path, llama_log: LlamaLog) -> Iterator[Vocab]:
    handle, vocab = load_vocab(vocabularies / "ggml-vocab-llama-spm.gguf", space_prefix=True)
    yield vocab
    lib.llama_model_free(handle)
