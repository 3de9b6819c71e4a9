"""A model's weights and vocabulary in llama.cpp, without a context."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_backend.engine.llama.binding import LIBRARY, lib
from llama_backend.engine.llama.log import LlamaLog
from llama_backend.engine.llama.vocab_reader import VocabReader
from llama_backend.engine.placement.kv_size import KVSize
from llama_backend.engine.prompt.vocab import Vocab
from llama_backend.errors import ModelUnreadable
from llama_backend.models.gguf import read_metadata
from llama_backend.models.hyperparameters import Hyperparameters

if TYPE_CHECKING:
    from llama_backend.engine.embedder import Pooling
    from llama_backend.engine.placement.offload import Offload

_TEXT_SIZE = 256
_CPU_ONLY = 0
_POOLINGS: dict[str, Pooling] = {"2": "first", "3": "last"}
"""By llama.cpp's number of the pooling type."""


class Model:
    """The weights of a GGUF file. Raises ModelUnreadable with the error in the header, or with llama.cpp's reason."""

    library: Path = LIBRARY
    """The file of llama.cpp's shared library, whose build decides how a KV state is laid out."""

    def __init__(
        self, path: str, offload: Offload | None, log: LlamaLog, progress: Callable[[float], None] | None = None
    ) -> None:
        """`offload` says which layers go to GPUs; None means that the processor computes all."""
        self._path = Path(path)
        lib.llama_backend_init()
        params = lib.llama_model_default_params()
        _place(params, offload)
        if progress is not None:
            params.progress_callback = lib.llama_progress_callback(_callback(progress))
        self.handle = lib.llama_model_load_from_file(path.encode(), params)
        if not self.handle:
            read_metadata(self._path)
            raise ModelUnreadable(f"{path}: {_short(log.reason) or 'llama.cpp cannot load it'}")
        self._vocab = lib.llama_model_get_vocab(self.handle)
        if not lib.llama_model_has_decoder(self.handle):
            raise ModelUnreadable(f"{path}: this model does not generate text")

    @property
    def context_trained(self) -> int:
        """Tokens of context that it was trained for."""
        return int(lib.llama_model_n_ctx_train(self.handle))

    @property
    def parameters(self) -> int:
        """How many weights it has."""
        return int(lib.llama_model_n_params(self.handle))

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return int(lib.llama_model_size(self.handle))

    @property
    def description(self) -> str:
        """Architecture, size and quantisation in a few words, as llama.cpp puts them."""
        buffer = ctypes.create_string_buffer(_TEXT_SIZE)
        lib.llama_model_desc(self.handle, buffer, _TEXT_SIZE)
        return buffer.value.decode("utf-8", "replace")

    @property
    def layers(self) -> int:
        """Repeating layers, without the output."""
        return int(lib.llama_model_n_layer(self.handle))

    @cached_property
    def kv_size(self) -> KVSize:
        """The size of a KV cell.

        llama.cpp does not return values that differ by layer; where there may be some, the file's header is read. A
        header beyond the limits of that reading does not refuse a model that llama.cpp has loaded.
        """
        architecture = self._meta("general.architecture")
        read: Mapping[str, object] = {}
        if self._meta(f"{architecture}.attention.head_count_kv") is None:
            with suppress(ModelUnreadable):
                read = read_metadata(self._path)

        def value(key: str) -> object:
            text = self._meta(f"{architecture}.{key}")
            return int(text) if text and text.isdigit() else read.get(f"{architecture}.{key}")

        return KVSize.of(Hyperparameters(value))

    @property
    def embedding_width(self) -> int:
        """How many numbers an embedding has."""
        return int(lib.llama_model_n_embd_out(self.handle))

    @property
    def pooling(self) -> Pooling:
        """How a text's embedding is made of those of its tokens: as the file says, or by default their mean."""
        value = self._meta(f"{self._meta('general.architecture')}.pooling_type")
        return _POOLINGS.get(value or "", "mean")

    @property
    def supports_partial_removal(self) -> bool:
        """Whether single tokens can be removed; recurrent models (Mamba) keep one state for all tokens."""
        return not (lib.llama_model_is_recurrent(self.handle) or lib.llama_model_is_hybrid(self.handle))

    @property
    def states_are_complete(self) -> bool:
        """Whether a saved state holds all tokens; with a sliding window it holds only the last ones."""
        return int(lib.llama_model_n_swa(self.handle)) == 0

    @property
    def template(self) -> str | None:
        """The chat template in the file, or None."""
        text = lib.llama_model_chat_template(self.handle, None)
        return text.decode("utf-8", "replace") if text else None

    @cached_property
    def vocab(self) -> Vocab:
        """The vocabulary, read when it is first asked for."""
        return VocabReader(self._vocab).read(self._space_prefix)

    @property
    def _space_prefix(self) -> bool:
        """Whether llama.cpp puts a space before text: with SentencePiece, unless the file says otherwise."""
        is_spm = lib.llama_vocab_type(self._vocab) == lib.LLAMA_VOCAB_TYPE_SPM
        return bool(is_spm and self._meta("tokenizer.ggml.add_space_prefix") in (None, "true"))

    def _meta(self, key: str) -> str | None:
        """A short value of the file's header."""
        buffer = ctypes.create_string_buffer(_TEXT_SIZE)
        size = lib.llama_model_meta_val_str(self.handle, key.encode(), buffer, _TEXT_SIZE)
        return buffer.value.decode("utf-8", "replace") if size >= 0 else None


def _place(params: Any, offload: Offload | None) -> None:
    """Sets llama.cpp's parameters for which layers go to which GPU."""
    params.n_gpu_layers = offload.layers if offload else _CPU_ONLY
    if offload is None:
        return
    if offload.main_gpu is not None:
        params.split_mode, params.main_gpu = lib.LLAMA_SPLIT_MODE_NONE, offload.main_gpu
    if offload.split is not None:
        # llama.cpp reads as many numbers as it can have devices; ctypes keeps the array for as long as the parameters.
        params.tensor_split = (ctypes.c_float * lib.llama_max_devices())(*offload.split)


def _callback(progress: Callable[[float], None]) -> Callable[[float, object], bool]:
    """The callback that llama.cpp calls while it loads; returning True continues."""

    def report(value: float, _data: object) -> bool:
        progress(value)
        return True

    return report


def _short(reason: str) -> str:
    """A line of llama.cpp's log without the names of functions in front."""
    return reason.removeprefix("llama_model_load: ").removeprefix("error loading model: ")
