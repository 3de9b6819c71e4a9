"""How large a model's parts are, from its file's header alone."""

from __future__ import annotations

import re
from pathlib import Path

from llama_backend.engine.placement.kv_plan import KV_BYTES
from llama_backend.engine.placement.offload import ModelShape
from llama_backend.errors import ModelUnreadable
from llama_backend.models.gguf import read_metadata, tensor_bytes
from llama_backend.wire.ipc import KVType

_LAYER = re.compile(r"blk\.(\d+)\.")
_INPUT = "token_embd.weight"
_OUTPUT = "output.weight"
_MANY_WORDS = 256_000
"""Tokens of a vocabulary of which the header does not tell."""


class ModelFile:
    """The header of a GGUF file. Raises ModelUnreadable."""

    def __init__(self, path: Path) -> None:
        self._metadata = read_metadata(path)
        self._sizes = tensor_bytes(path)
        self._layers = self._number("block_count")
        if not self._layers:
            raise ModelUnreadable(f"{path}: the header does not say how many layers there are")

    @property
    def context_trained(self) -> int:
        return self._number("context_length")

    def kv_bytes_per_token(self, kv_type: KVType) -> int:
        """Of all layers."""
        return int(self._kv_values * self._layers * KV_BYTES[kv_type])

    def shape(self, kv_type: KVType) -> ModelShape:
        """Sizes by layer; the embeddings stay with the processor, but serve as output where there is no other."""
        layers, output = [0] * self._layers, 0
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
            kv_per_token=self._kv_values * KV_BYTES[kv_type],
            n_embd=self._number("embedding_length"),
            n_ff=self._number("feed_forward_length"),
            n_vocab=self._number("vocab_size") or _MANY_WORDS,
        )

    @property
    def _kv_values(self) -> int:
        """Numbers that keys and values of a token are in one layer."""
        heads = max(self._number("attention.head_count"), 1)
        kv_heads = self._number("attention.head_count_kv") or heads
        usual = self._number("embedding_length") // heads
        key = self._number("attention.key_length") or usual
        return kv_heads * (key + (self._number("attention.value_length") or usual))

    def _number(self, key: str) -> int:
        """A number of the model's architecture, 0 where it is missing or differs by layer."""
        value = self._metadata.get(f"{self._metadata.get('general.architecture')}.{key}", 0)
        return int(value) if isinstance(value, int | float) else 0
