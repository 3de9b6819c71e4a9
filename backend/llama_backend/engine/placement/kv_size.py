"""The size of the keys and values of a token."""

from __future__ import annotations

from dataclasses import dataclass

from llama_backend.models.hyperparameters import Hyperparameters
from llama_backend.wire.ipc import KVType

_VALUE_BYTES: dict[KVType, float] = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
"""The quantised types have blocks of 32 values with a scale (ggml-common.h)."""


@dataclass(frozen=True)
class KVSize:
    """The size of a KV cell, which holds the keys and values of one token."""

    values: tuple[int, ...]
    """The number of values in the keys and values of one token, for each layer."""

    @classmethod
    def of(cls, model: Hyperparameters) -> KVSize:
        """The size according to a model's header: each KV head of a layer has one key and one value.

        Keys and values may differ in length, and layers in their number of KV heads. The defaults for what the header
        leaves out are llama.cpp's (src/llama-model.cpp, `load_hparams`): every head is a KV head, and its key and value
        are as long as the embedding divided by the heads of the first layer.
        """
        heads = model.by_layer("attention.head_count")
        if not heads:
            return cls(())
        head_size = model.number("embedding_length") // max(heads[0], 1)
        key = model.number("attention.key_length", head_size)
        value = model.number("attention.value_length", head_size)
        kv_heads = model.by_layer("attention.head_count_kv", heads[0])
        return cls(tuple(count * (key + value) for count in kv_heads))

    def bytes_by_layer(self, kv_type: KVType) -> tuple[float, ...]:
        """Bytes of one token's keys and values, for each layer."""
        return tuple(count * _VALUE_BYTES[kv_type] for count in self.values)

    def bytes_per_token(self, kv_type: KVType) -> int:
        """Bytes of one token's keys and values in all layers."""
        return int(sum(self.values) * _VALUE_BYTES[kv_type])
