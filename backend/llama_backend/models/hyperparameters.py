"""The numbers of a model's architecture, by their keys in the header of its GGUF file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Hyperparameters:
    """Numbers such as `attention.head_count`, whose key in the file has the architecture in front (`llama.…`)."""

    value: Callable[[str], object]
    """Looks up a value of the header; None where the header does not have it."""

    @property
    def layers(self) -> int:
        """Repeating layers, without the output."""
        return self.number("block_count")

    def number(self, key: str, default: int = 0) -> int:
        """One number for the whole model; `default` where it is missing or differs by layer."""
        value = self.value(key)
        return value if isinstance(value, int) else default

    def by_layer(self, key: str, default: int = 0) -> tuple[int, ...]:
        """A number for each layer: the same one where the header has only one, `default` where it has no valid ones."""
        value = self.value(key)
        if isinstance(value, tuple) and len(value) == self.layers:
            return value
        return (self.number(key, default),) * self.layers
