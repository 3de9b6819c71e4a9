"""The configuration of a Llama, and where each layout of a checkpoint keeps it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llama_convert.errors import CorruptSource, UnsupportedModel
from llama_convert.model.numbers import MOST_CONTEXT, Numbers
from llama_convert.model.rope import Rope
from llama_convert.untrusted import MOST_TOKENS, excerpt

ARCHITECTURES = ("LlamaForCausalLM", "LLaMAForCausalLM")
LLAMA2_CONTEXT = 4096
MOST_BLOCKS = 512
"""Blocks that llama.cpp knows (LLAMA_MAX_LAYERS)."""
MOST_HEADS = 1024
MOST_HEAD_DIM = 256
MOST_WIDTH = 1 << 16
"""Four times the width of Llama 3.1 405B. The rows of a head are read at once, so this bounds the memory."""
MOST_INNER = 1 << 18


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """The configuration of a Llama. Lengths are counts of elements, `context_length` of tokens.

    `head_dim` is the length of a key and of a value of one head; `explicit_head_dim` says whether the source names it.
    """

    block_count: int
    embedding_length: int
    feed_forward_length: int
    head_count: int
    head_count_kv: int
    head_dim: int
    vocab_size: int
    context_length: int
    rms_epsilon: float
    rope: Rope
    explicit_head_dim: bool = False
    tied_embeddings: bool = False

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that the keys and values of a token take in all blocks, as F16.

        Every KV head keeps a key of `attention.key_length` and a value of `attention.value_length`; both are
        `head_dim`, which need not be the embedding's length divided by the heads.
        """
        key_length = value_length = self.head_dim
        return 2 * self.block_count * self.head_count_kv * (key_length + value_length)

    def with_context(self, context: int | None) -> LlamaConfig:
        """The same, with the context that the user asks for."""
        return replace(self, context_length=context) if context else self


def from_hf(config: dict[str, Any], path: Path) -> LlamaConfig:
    """The configuration that a Hugging Face `config.json` describes.

    Raises UnsupportedModel where it is not a Llama, is quantised already, or has a kind of rope scaling that llama.cpp
    does not have, and CorruptSource where a number is missing or makes no sense.
    """
    _check_architecture(config, path)
    numbers = Numbers(config, path)
    heads, width = numbers.count("num_attention_heads", MOST_HEADS), numbers.count("hidden_size", MOST_WIDTH)
    head_dim = config.get("head_dim")
    found = LlamaConfig(
        block_count=numbers.count("num_hidden_layers", MOST_BLOCKS),
        embedding_length=width,
        feed_forward_length=numbers.count("intermediate_size", MOST_INNER),
        head_count=heads,
        head_count_kv=numbers.count("num_key_value_heads", MOST_HEADS, heads),
        head_dim=numbers.count("head_dim", MOST_HEAD_DIM, width // heads),
        vocab_size=numbers.count("vocab_size", MOST_TOKENS),
        context_length=numbers.count("max_position_embeddings", MOST_CONTEXT, LLAMA2_CONTEXT),
        rms_epsilon=numbers.real("rms_norm_eps"),
        rope=Rope.from_hf(config, path),
        explicit_head_dim=head_dim is not None,
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
    )
    return _checked(found, path)


def from_meta(params: dict[str, Any], path: Path, *, vocab_size: int, feed_forward_length: int) -> LlamaConfig:
    """The configuration that Meta's `params.json` describes.

    The file may say a vocabulary of -1 and never says the width of the feed-forward layer: both come from the tensors.
    It does not know the context either; Llama 2 was trained with 4,096 tokens.
    """
    numbers = Numbers(params, path)
    heads, width = numbers.count("n_heads", MOST_HEADS), numbers.count("dim", MOST_WIDTH)
    found = LlamaConfig(
        block_count=numbers.count("n_layers", MOST_BLOCKS),
        embedding_length=width,
        feed_forward_length=feed_forward_length,
        head_count=heads,
        head_count_kv=numbers.count("n_kv_heads", MOST_HEADS, heads),
        head_dim=width // heads,
        vocab_size=vocab_size,
        context_length=LLAMA2_CONTEXT,
        rms_epsilon=numbers.real("norm_eps"),
        rope=Rope(theta=numbers.real("rope_theta", 10000.0)),
    )
    return _checked(found, path)


def _check_architecture(config: dict[str, Any], path: Path) -> None:
    quantization = config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method", "unknown") if isinstance(quantization, dict) else quantization
        raise UnsupportedModel(f"{path}: the weights are quantised already ({excerpt(method)}); convert the original")
    architectures = config.get("architectures") or [config.get("model_type", "unknown")]
    if not isinstance(architectures, list):
        raise CorruptSource(f"{path}: architectures is {excerpt(architectures)}, but should be a list of names")
    if not any(name in (*ARCHITECTURES, "llama") for name in architectures):
        raise UnsupportedModel(
            f"{path}: the architecture is {excerpt(architectures[0])}, but only Llama can be converted"
        )
    activation = config.get("hidden_act", "silu")
    if activation != "silu":
        raise UnsupportedModel(f"{path}: the activation is {excerpt(activation)}; a Llama has silu")


def _checked(config: LlamaConfig, path: Path) -> LlamaConfig:
    """The same configuration, once the counts that come from elsewhere, such as the shapes of tensors, are checked."""
    limits = {
        "rows of the embedding": (config.vocab_size, MOST_TOKENS),
        "width of the feed-forward layer": (config.feed_forward_length, MOST_INNER),
        "width of a head": (config.head_dim, MOST_HEAD_DIM),
    }
    for name, (count, most) in limits.items():
        if not 1 <= count <= most:
            raise CorruptSource(f"{path}: the {name} is {count}, but should be a number from 1 to {most}")
    if config.head_count % config.head_count_kv or config.head_dim % 2:
        raise CorruptSource(f"{path}: {config.head_count} heads cannot share {config.head_count_kv} KV heads evenly")
    return config
