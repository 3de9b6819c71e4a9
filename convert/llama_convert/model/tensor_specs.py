"""The tensors of a Llama: their names in each layout, their shapes, and which are permuted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llama_convert.model.llama_config import LlamaConfig


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of the model.

    `shape` is row-major. `heads` is the number of heads whose rows are permuted on the way from the Hugging Face
    layout, or 0.
    """

    name: str
    hf: str
    meta: str
    shape: tuple[int, ...]
    heads: int = 0


def expected_tensors(config: LlamaConfig) -> Iterator[TensorSpec]:
    """Every weight that a model of this configuration has, in the order in which it is written."""
    width, vocabulary = config.embedding_length, (config.vocab_size, config.embedding_length)
    yield TensorSpec("token_embd.weight", "model.embed_tokens.weight", "tok_embeddings.weight", vocabulary)
    for block in range(config.block_count):
        yield from _block(config, block)
    yield TensorSpec("output_norm.weight", "model.norm.weight", "norm.weight", (width,))
    yield TensorSpec("output.weight", "lm_head.weight", "output.weight", vocabulary)


def _block(config: LlamaConfig, block: int) -> Iterator[TensorSpec]:
    width, inner = config.embedding_length, config.feed_forward_length
    queries, keys = config.head_count * config.head_dim, config.head_count_kv * config.head_dim

    def spec(name: str, hf: str, meta: str, *shape: int, heads: int = 0) -> TensorSpec:
        hf_name, meta_name = f"model.layers.{block}.{hf}.weight", f"layers.{block}.{meta}.weight"
        return TensorSpec(f"blk.{block}.{name}.weight", hf_name, meta_name, shape, heads)

    yield spec("attn_norm", "input_layernorm", "attention_norm", width)
    yield spec("attn_q", "self_attn.q_proj", "attention.wq", queries, width, heads=config.head_count)
    yield spec("attn_k", "self_attn.k_proj", "attention.wk", keys, width, heads=config.head_count_kv)
    yield spec("attn_v", "self_attn.v_proj", "attention.wv", keys, width)
    yield spec("attn_output", "self_attn.o_proj", "attention.wo", width, queries)
    yield spec("ffn_norm", "post_attention_layernorm", "ffn_norm", width)
    yield spec("ffn_gate", "mlp.gate_proj", "feed_forward.w1", inner, width)
    yield spec("ffn_up", "mlp.up_proj", "feed_forward.w3", inner, width)
    yield spec("ffn_down", "mlp.down_proj", "feed_forward.w2", width, inner)


def bias_of(spec: TensorSpec) -> TensorSpec | None:
    """The bias that a projection may have; norms and embeddings have none."""
    if len(spec.shape) != 2 or not spec.name.startswith("blk."):
        return None
    hf, meta = (name.removesuffix("weight") + "bias" for name in (spec.hf, spec.meta))
    name = spec.name.removesuffix("weight") + "bias"
    return TensorSpec(name, hf, meta, spec.shape[:1], spec.heads)
