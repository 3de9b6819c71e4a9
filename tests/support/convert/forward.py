"""A Llama's forward pass in float64 on the Hugging Face layout: the reference for everything that is converted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.support.convert.layouts import Tensors, TinyLlama

Floats = npt.NDArray[np.float64]


def logits(model: TinyLlama, weights: Tensors, tokens: Sequence[int], factors: Any = 1.0, scale: float = 1.0) -> Floats:
    """The logits after each token, shape (tokens, vocab).

    `factors` divide the rope's frequencies, `scale` divides the positions.
    """
    state = weights["model.embed_tokens.weight"][list(tokens)].astype(np.float64)
    angles = _angles(len(tokens), model.head_dim, factors, scale)
    for layer in range(model.layers):
        state = _block(model, weights, f"model.layers.{layer}", state, angles)
    head = weights["model.embed_tokens.weight" if model.tied else "lm_head.weight"].astype(np.float64)
    return np.asarray(_norm(state, weights["model.norm.weight"]) @ head.T)


def nmse(found: npt.NDArray[Any], wanted: Floats) -> float:
    """Mean squared error over the mean square of what is wanted."""
    return float(((found - wanted) ** 2).sum() / (wanted**2).sum())


def _angles(count: int, head_dim: int, factors: Any, scale: float) -> Floats:
    frequencies = 10000.0 ** -(np.arange(0, head_dim, 2) / head_dim) / factors
    return np.outer(np.arange(count) / scale, frequencies)


def _block(model: TinyLlama, weights: Tensors, prefix: str, state: Floats, angles: Floats) -> Floats:
    def linear(values: Floats, name: str) -> Floats:
        out = values @ weights[f"{prefix}.{name}.weight"].astype(np.float64).T
        return out + weights[f"{prefix}.{name}.bias"] if model.biases else out

    inner = _norm(state, weights[f"{prefix}.input_layernorm.weight"])
    queries, keys, values = (linear(inner, f"self_attn.{name}_proj") for name in "qkv")
    state = state + linear(_attention(model, queries, keys, values, angles), "self_attn.o_proj")
    inner = _norm(state, weights[f"{prefix}.post_attention_layernorm.weight"])
    gate = linear(inner, "mlp.gate_proj")
    return state + linear(gate / (1 + np.exp(-gate)) * linear(inner, "mlp.up_proj"), "mlp.down_proj")


def _attention(model: TinyLlama, queries: Floats, keys: Floats, values: Floats, angles: Floats) -> Floats:
    count, group = len(queries), model.heads // model.kv_heads
    split = (count, -1, model.head_dim)
    rotated = _rotate(queries.reshape(split), angles)
    shared = np.repeat(_rotate(keys.reshape(split), angles), group, axis=1)
    scores = np.einsum("qhd,khd->hqk", rotated, shared) / np.sqrt(model.head_dim)
    scores += np.triu(np.full((count, count), -np.inf), 1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    spread = np.repeat(values.reshape(split), group, axis=1)
    return np.asarray(np.einsum("hqk,khd->qhd", weights, spread).reshape(count, -1))


def _rotate(vectors: Floats, angles: Floats) -> Floats:
    """Rotate the pairs (j, j + D/2) of each head."""
    first, second = np.split(vectors, 2, axis=-1)
    cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


def _norm(state: Floats, weight: npt.NDArray[Any]) -> Floats:
    scale = 1 / np.sqrt((state**2).mean(-1, keepdims=True) + 1e-5)
    return np.asarray(state * scale * weight.astype(np.float64))
