"""llama.cpp in the test process: logits and tokens of a GGUF file."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp

_QUIET = llama_cpp.llama_log_callback(lambda level, text, data: None)


@contextmanager
def loaded(path: Path, *, vocab_only: bool = False) -> Iterator[Any]:
    """The model in `path`, freed at the end."""
    llama_cpp.llama_log_set(_QUIET, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = vocab_only
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    assert model, f"llama.cpp does not load {path}"
    try:
        yield model
    finally:
        llama_cpp.llama_model_free(model)


def all_logits(path: Path, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
    """The logits after each token, with the keys and values kept in F32 so that only the weights round."""
    with loaded(path) as model:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = 512
        params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.n_threads = params.n_threads_batch = 1
        context = llama_cpp.llama_init_from_model(model, params)
        rows = _decode(context, tokens, llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model)))
        llama_cpp.llama_free(context)
        return rows


def _decode(context: Any, tokens: Sequence[int], width: int) -> npt.NDArray[np.float32]:
    batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for index, token in enumerate(tokens):
        batch.token[index], batch.pos[index] = token, index
        batch.n_seq_id[index], batch.seq_id[index][0], batch.logits[index] = 1, 0, 1
    assert llama_cpp.llama_decode(context, batch) == 0
    found = llama_cpp.llama_get_logits(context)
    rows = np.ctypeslib.as_array(found, (len(tokens), width)).copy()
    llama_cpp.llama_batch_free(batch)
    return rows


def greedy(path: Path, tokens: Sequence[int], count: int) -> list[int]:
    """The `count` most likely tokens after `tokens`."""
    found = list(tokens)
    for _ in range(count):
        found.append(int(all_logits(path, found)[-1].argmax()))
    return found[len(tokens) :]


def tokenize(model: Any, text: str) -> list[int]:
    """The tokens of `text`, none added, nothing in it taken for a special token."""
    vocab = llama_cpp.llama_model_get_vocab(model)
    raw = text.encode("utf-8")
    room = len(raw) + 16
    tokens = (llama_cpp.llama_token * room)()
    count = llama_cpp.llama_tokenize(vocab, raw, len(raw), tokens, room, False, False)
    assert count >= 0
    return list(tokens[:count])
