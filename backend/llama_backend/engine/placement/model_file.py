"""The sizes of a model's parts, from the header of its file alone."""

from __future__ import annotations

import re
from pathlib import Path

from llama_backend.engine.placement.kv_size import KVSize
from llama_backend.engine.placement.offload import ModelShape
from llama_backend.errors import ModelUnreadable
from llama_backend.models.gguf import read_metadata, tensor_bytes
from llama_backend.models.hyperparameters import Hyperparameters
from llama_backend.wire.ipc import KVType

_LAYER = re.compile(r"blk\.(\d+)\.")
_INPUT = "token_embd.weight"
_OUTPUT = "output.weight"
_MANY_WORDS = 256_000
"""Assumed size of a vocabulary where the header does not give it."""
_MOST_LAYERS = 1 << 16
"""More than any model has. A header with more is wrong, and lists of that length would fill the memory."""


class ModelFile:
    """The header of a GGUF file. Raises ModelUnreadable."""

    def __init__(self, path: Path) -> None:
        metadata = read_metadata(path)
        architecture = metadata.get("general.architecture")
        self._sizes = tensor_bytes(path)
        self._numbers = Hyperparameters(lambda key: metadata.get(f"{architecture}.{key}"))
        if self._numbers.layers < 1:
            raise ModelUnreadable(f"{path}: the header does not say how many layers there are")
        if self._numbers.layers > _MOST_LAYERS:
            raise ModelUnreadable(f"{path}: the header says {self._numbers.layers} layers, more than any model has")

    @property
    def context_trained(self) -> int:
        """Tokens of context that the model was trained for."""
        return self._numbers.number("context_length")

    @property
    def kv_size(self) -> KVSize:
        """The size of a KV cell."""
        return KVSize.of(self._numbers)

    def shape(self, kv_type: KVType) -> ModelShape:
        """Sizes by layer. Input embeddings, which stay in main memory, only count where they are the output as well."""
        layers, output = [0] * self._numbers.layers, 0
        for name, size in self._sizes.items():
            if (found := _LAYER.match(name)) and int(found[1]) < len(layers):
                layers[int(found[1])] += size
            elif name != _INPUT:
                output += size
        if _OUTPUT not in self._sizes:
            output += self._sizes.get(_INPUT, 0)
        return ModelShape(
            layers=tuple(layers),
            output=output,
            kv_per_token=self.kv_size.bytes_by_layer(kv_type),
            n_embd=self._numbers.number("embedding_length"),
            n_ff=max(self._numbers.by_layer("feed_forward_length")),
            n_vocab=self._numbers.number("vocab_size") or _MANY_WORDS,
        )
