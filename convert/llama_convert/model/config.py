"""The numbers that make a Llama, and where each layout of a checkpoint keeps them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llama_convert.errors import CorruptSource, UnsupportedModel
from llama_convert.model.rope import Rope

ARCHITECTURES = ("LlamaForCausalLM", "LLaMAForCausalLM")
LLAMA2_CONTEXT = 4096


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """The numbers of a Llama. Lengths are counts of elements, `context_length` of tokens.

    `head_dim` is given as it is used; `explicit_head_dim` says whether the source names it.
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

    def with_context(self, context: int | None) -> LlamaConfig:
        """The same, with the context that a person asked for."""
        return replace(self, context_length=context) if context else self


def from_hf(config: dict[str, Any], path: Path) -> LlamaConfig:
    """The configuration that a Hugging Face `config.json` describes.

    Raises:
        UnsupportedModel: it is no Llama, it is quantised already, or its rope is of a kind that llama.cpp lacks.
        CorruptSource: a number is missing or makes no sense.
    """
    _refuse_foreign(config, path)
    try:
        heads = int(config["num_attention_heads"])
        width = int(config["hidden_size"])
        head_dim = config.get("head_dim")
        found = LlamaConfig(
            block_count=int(config["num_hidden_layers"]),
            embedding_length=width,
            feed_forward_length=int(config["intermediate_size"]),
            head_count=heads,
            head_count_kv=int(config.get("num_key_value_heads") or heads),
            head_dim=int(head_dim or width // heads),
            vocab_size=int(config["vocab_size"]),
            context_length=int(config.get("max_position_embeddings") or LLAMA2_CONTEXT),
            rms_epsilon=float(config["rms_norm_eps"]),
            rope=Rope.from_hf(config),
            explicit_head_dim=head_dim is not None,
            tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        )
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CorruptSource(f"{path}: a number is missing or makes no sense ({error})") from error
    return _checked(found, path)


def from_meta(params: dict[str, Any], path: Path, *, vocab_size: int, feed_forward_length: int) -> LlamaConfig:
    """The configuration that Meta's `params.json` describes.

    The file may say a vocabulary of -1 and never says the width of the feed-forward layer: both come from the tensors.
    It does not know the context either; Llama 2 was trained with 4,096 tokens.
    """
    try:
        heads, width = int(params["n_heads"]), int(params["dim"])
        found = LlamaConfig(
            block_count=int(params["n_layers"]),
            embedding_length=width,
            feed_forward_length=feed_forward_length,
            head_count=heads,
            head_count_kv=int(params.get("n_kv_heads") or heads),
            head_dim=width // heads,
            vocab_size=vocab_size,
            context_length=LLAMA2_CONTEXT,
            rms_epsilon=float(params["norm_eps"]),
            rope=Rope(theta=float(params.get("rope_theta") or 10000.0)),
        )
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise CorruptSource(f"{path}: a number is missing or makes no sense ({error})") from error
    return _checked(found, path)


def _refuse_foreign(config: dict[str, Any], path: Path) -> None:
    quantization = config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method", "unknown") if isinstance(quantization, dict) else quantization
        raise UnsupportedModel(f"{path}: the weights are quantised already ({method}); convert the original ones")
    architectures = config.get("architectures") or [config.get("model_type", "unknown")]
    if not any(name in (*ARCHITECTURES, "llama") for name in architectures):
        raise UnsupportedModel(f"{path}: the architecture is {architectures[0]}, and only Llama can be converted")
    activation = config.get("hidden_act", "silu")
    if activation != "silu":
        raise UnsupportedModel(f"{path}: the activation is {activation}; a Llama has silu")


def _checked(config: LlamaConfig, path: Path) -> LlamaConfig:
    counts = (config.block_count, config.embedding_length, config.feed_forward_length, config.head_count)
    if min(*counts, config.head_count_kv, config.head_dim, config.vocab_size) < 1:
        raise CorruptSource(f"{path}: a count is zero or negative")
    if config.head_count % config.head_count_kv or config.head_dim % 2:
        raise CorruptSource(f"{path}: {config.head_count} heads do not share {config.head_count_kv} KV heads evenly")
    return config
