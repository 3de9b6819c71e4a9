"""llama.cpp's binding: the only module of the converter that imports it, and only the worker imports this module."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import llama_cpp
import numpy as np
import numpy.typing as npt

from llama_convert.errors import CheckFailed

Floats = npt.NDArray[np.float32]
_BUFFER = 256 << 20


def _load_backends() -> None:
    """Loads ggml's backends from beside the library, where it was built with separate ones (GGML_BACKEND_DL)."""
    path = llama_cpp.llama_cpp._lib._name
    library = ctypes.CDLL(path)
    if library.ggml_backend_reg_count() == 0:
        library.ggml_backend_load_all_from_path(os.fsencode(Path(path).parent))


_load_backends()


def listen(callback: Callable[[str], None]) -> Any:
    """Sends llama.cpp's log to `callback`, piece by piece; the result must be kept for as long as llama.cpp logs."""

    def receive(_level: int, text: bytes | None, _data: Any) -> None:
        callback((text or b"").decode("utf-8", errors="replace"))

    pointer = llama_cpp.llama_log_callback(receive)
    llama_cpp.llama_log_set(pointer, ctypes.c_void_p(0))
    return pointer


def quantize(
    source: Path,
    target: Path,
    file_type: int,
    *,
    threads: int,
    dry_run: bool = False,
    importance: Mapping[str, Floats] | None = None,
) -> bool:
    """Quantises `source` into `target`; returns whether it succeeded, the reason of a failure is in the log.

    At most 256 MiB of rows are in memory at a time.
    """
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = file_type
    params.nthread = threads
    params.dry_run = dry_run
    params.max_buf_size = _BUFFER
    if importance:
        params.imatrix = _importance_array(importance)
    code = llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params))
    return bool(code == 0)


def _importance_array(importance: Mapping[str, Floats]) -> Any:
    """The matrix as llama.cpp takes it: entries, the last of which has no name."""
    array = (llama_cpp.llama_model_imatrix_data * (len(importance) + 1))()
    for entry, (name, values) in zip(array, importance.items(), strict=False):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    return array


class Model:
    """A loaded model with one context of `context` tokens."""

    def __init__(self, path: Path, *, context: int, threads: int, check_tensors: bool = False) -> None:
        params = llama_cpp.llama_model_default_params()
        params.check_tensors = check_tensors
        self._model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        if not self._model:
            raise CheckFailed(f"{path}: llama.cpp does not load the file")
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self._context = llama_cpp.llama_init_from_model(self._model, _context_params(context, threads))
        if not self._context:
            llama_cpp.llama_model_free(self._model)
            raise CheckFailed(f"{path}: llama.cpp cannot create a context of {context} tokens")
        self.vocab_size = int(llama_cpp.llama_vocab_n_tokens(self._vocab))
        self.bos = int(llama_cpp.llama_vocab_bos(self._vocab))
        self.adds_bos = bool(llama_cpp.llama_vocab_get_add_bos(self._vocab))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)

    def tokenize(self, text: str) -> list[int]:
        """The tokens of `text`, with BOS where the model wants it; no text is taken for a special token."""
        raw = text.encode("utf-8")
        room = len(raw) + 16
        tokens = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self._vocab, raw, len(raw), tokens, room, True, False)
        return list(tokens[: max(count, 0)])

    def logits(self, tokens: Sequence[int], *, first: int = 0) -> Floats:
        """The logits after each of `tokens` from `first` on, as rows; the context is emptied before."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for index, token in enumerate(tokens):
                batch.token[index], batch.pos[index] = token, index
                batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
                batch.logits[index] = index >= first
            if llama_cpp.llama_decode(self._context, batch):
                raise CheckFailed("llama.cpp cannot compute with the model")
            rows = llama_cpp.llama_get_logits(self._context)
            return np.ctypeslib.as_array(rows, (len(tokens) - first, self.vocab_size)).copy()
        finally:
            llama_cpp.llama_batch_free(batch)


def _context_params(context: int, threads: int) -> Any:
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = context
    params.n_threads = params.n_threads_batch = threads
    return params
