"""Rotary position embeddings: the kinds of scaling that llama.cpp knows, as metadata or as a tensor of factors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from llama_convert.errors import UnsupportedModel
from llama_convert.gguf.values import Metadata, f32, string, u32

_NEEDED = {"linear": ("factor",), "yarn": ("factor", "original_max_position_embeddings")}


@dataclass(frozen=True, slots=True)
class Rope:
    """The base of the frequencies and how they are stretched; `kind` is transformers' `rope_type`."""

    theta: float = 10000.0
    kind: str = "default"
    scaling: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> Rope:
        """Read `rope_theta` and `rope_scaling`, or the `rope_parameters` of newer configurations."""
        scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
        theta = scaling.get("rope_theta") or config.get("rope_theta") or 10000.0
        kind = str(scaling.get("rope_type") or scaling.get("type") or "default").lower()
        if kind not in ("default", "linear", "yarn", "llama3"):
            raise UnsupportedModel(f"rope scaling of type {kind!r} cannot be expressed in a GGUF file")
        for name in _NEEDED.get(kind, ()):
            float(scaling[name])
        return cls(float(theta), kind, dict(scaling))

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
            "llama.rope.scaling.original_context_length": u32(self.scaling["original_max_position_embeddings"])
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
        factor = float(self.scaling.get("factor", 8.0))
        low = float(self.scaling.get("low_freq_factor", 1.0))
        high = float(self.scaling.get("high_freq_factor", 4.0))
        context = float(self.scaling.get("original_max_position_embeddings", 8192))
        if wavelength < context / high:
            return 1.0
        if wavelength > context / low:
            return factor
        smooth = (context / wavelength - low) / (high - low)
        return 1 / ((1 - smooth) / factor + smooth)
