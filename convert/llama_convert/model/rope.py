"""Rotary position embeddings: the kinds of scaling that llama.cpp knows, as metadata or as a tensor of factors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llama_convert.errors import CorruptSource, UnsupportedModel
from llama_convert.gguf.values import Metadata, f32, string, u32
from llama_convert.model.numbers import LARGEST, MOST_CONTEXT, Numbers
from llama_convert.untrusted import excerpt

_NEEDED: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "yarn": ("factor", "original_max_position_embeddings"),
    "llama3": (),
}
"""The kinds of scaling, each with the numbers that it needs; all are above zero."""
_LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192.0,
}
_YARN = ("extrapolation_factor", "attention_factor", "attn_factor", "beta_fast", "beta_slow")
"""Numbers of YaRN that may be missing."""


@dataclass(frozen=True, slots=True)
class Rope:
    """The base of the frequencies and how they are stretched; `kind` is transformers' `rope_type`."""

    theta: float = 10000.0
    kind: str = "default"
    scaling: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_hf(cls, config: dict[str, Any], path: Path) -> Rope:
        """Reads `rope_theta` and `rope_scaling`, or the `rope_parameters` of newer configurations.

        Raises UnsupportedModel where llama.cpp does not have this kind of scaling, and CorruptSource where a number is
        missing or makes no sense.
        """
        name = "rope_parameters" if config.get("rope_parameters") else "rope_scaling"
        scaling = config.get(name) or {}
        if not isinstance(scaling, dict):
            raise CorruptSource(f"{path}: {name} is {excerpt(scaling)}, but should be an object")
        numbers = Numbers(scaling, path, f"{name}.")
        theta = numbers if scaling.get("rope_theta") else Numbers(config, path)
        kind = str(scaling.get("rope_type") or scaling.get("type") or "default")[:40].lower()
        if kind not in _NEEDED:
            raise UnsupportedModel(f"{path}: rope scaling of type {kind!r} cannot be expressed in a GGUF file")
        return cls(theta.real("rope_theta", 10000.0), kind, _scaling(kind, numbers))

    def metadata(self) -> Metadata:
        """The `llama.rope.*` values."""
        values: Metadata = {}
        if self.kind in ("linear", "yarn"):
            values["llama.rope.scaling.type"] = string(self.kind)
            values["llama.rope.scaling.factor"] = f32(self.scaling["factor"])
        if self.kind == "yarn":
            values |= self._yarn()
        values["llama.rope.freq_base"] = f32(self.theta)
        return values

    def _yarn(self) -> Metadata:
        values: Metadata = {
            "llama.rope.scaling.original_context_length": u32(int(self.scaling["original_max_position_embeddings"]))
        }
        names = {
            "yarn_ext_factor": ("extrapolation_factor",),
            "yarn_attn_factor": ("attention_factor", "attn_factor"),
            "yarn_beta_fast": ("beta_fast",),
            "yarn_beta_slow": ("beta_slow",),
        }
        for key, aliases in names.items():
            found = next((self.scaling[alias] for alias in aliases if self.scaling.get(alias) is not None), None)
            if found is not None:
                values[f"llama.rope.scaling.{key}"] = f32(found)
        return values

    def factors(self, head_dim: int) -> npt.NDArray[np.float32] | None:
        """What each frequency is divided by, for Llama 3.1's scaling; shape (head_dim / 2,).

        Long waves are slowed down by `factor`, short ones are left alone, and those between are blended:
        Llama 3.1's reference implementation, `apply_scaling`.
        """
        if self.kind != "llama3":
            return None
        frequencies = self.theta ** -(np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
        return np.array([self._factor(2 * math.pi / float(frequency)) for frequency in frequencies], np.float32)

    def _factor(self, wavelength: float) -> float:
        factor, low, high, context = ({**_LLAMA3, **self.scaling}[name] for name in _LLAMA3)
        if wavelength < context / high:
            return 1.0
        if wavelength > context / low:
            return factor
        smooth = (context / wavelength - low) / (high - low)
        return 1 / ((1 - smooth) / factor + smooth)


def _scaling(kind: str, numbers: Numbers) -> dict[str, float]:
    """The numbers that scaling of this kind uses."""
    found = {name: numbers.real(name) for name in _NEEDED[kind]}
    if kind == "yarn":
        numbers.count("original_max_position_embeddings", MOST_CONTEXT)
        found |= {name: numbers.real(name, above=-LARGEST) for name in _YARN if numbers.raw.get(name) is not None}
    if kind == "llama3":
        found = {name: numbers.real(name, default) for name, default in _LLAMA3.items()}
        if found["low_freq_factor"] >= found["high_freq_factor"]:
            raise CorruptSource(f"{numbers.path}: {numbers.inside}low_freq_factor is not below high_freq_factor")
    return found
