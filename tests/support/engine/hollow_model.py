"""A small Llama whose weights are all zero: llama.cpp loads it and computes with it, and its file takes a few KB."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llama_convert.gguf.tensor_types import TensorType
from llama_convert.gguf.values import Metadata, f32, f32s, i32s, string, strings, u32
from llama_convert.gguf.writer import TensorInfo, write_sparse

_PIECES = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)]]


@dataclass(frozen=True)
class HollowModel:
    """Sizes of a model; `head_size` is written to the header where it is not the usual one."""

    architecture: str = "llama"
    kv_heads: tuple[int, ...] = (2, 2)
    """For each layer."""
    heads: int = 4
    head_size: int = 16
    width: int = 64
    feed_forward: int = 96
    context: int = 512

    def write(self, path: Path) -> Path:
        write_sparse(path, self._metadata(), list(self._tensors()))
        return path

    def _metadata(self) -> Metadata:
        name, layers = self.architecture, len(self.kv_heads)
        alike = len(set(self.kv_heads)) == 1
        metadata = {
            "general.architecture": string(name),
            f"{name}.block_count": u32(layers),
            f"{name}.vocab_size": u32(len(_PIECES)),
            f"{name}.context_length": u32(self.context),
            f"{name}.embedding_length": u32(self.width),
            f"{name}.feed_forward_length": u32(self.feed_forward),
            f"{name}.attention.head_count": u32(self.heads),
            f"{name}.attention.head_count_kv": u32(self.kv_heads[0]) if alike else i32s(self.kv_heads),
            f"{name}.attention.layer_norm_rms_epsilon": f32(1e-5),
            f"{name}.rope.dimension_count": u32(self.head_size),
            "tokenizer.ggml.model": string("llama"),
            "tokenizer.ggml.tokens": strings(_PIECES),
            "tokenizer.ggml.scores": f32s([0.0] * len(_PIECES)),
            "tokenizer.ggml.token_type": i32s([2, 3, 3, *[6] * 256]),
        }
        if self.head_size != self.width // self.heads:
            metadata |= {f"{name}.attention.{part}_length": u32(self.head_size) for part in ("key", "value")}
        return metadata

    def _tensors(self) -> Iterator[TensorInfo]:
        yield _tensor("token_embd", len(_PIECES), self.width)
        queries = self.heads * self.head_size
        for layer, kv_heads in enumerate(self.kv_heads):
            block = f"blk.{layer}"
            yield _tensor(f"{block}.attn_norm", self.width)
            yield _tensor(f"{block}.attn_q", queries, self.width)
            yield _tensor(f"{block}.attn_k", kv_heads * self.head_size, self.width)
            yield _tensor(f"{block}.attn_v", kv_heads * self.head_size, self.width)
            yield _tensor(f"{block}.attn_output", self.width, queries)
            yield _tensor(f"{block}.ffn_norm", self.width)
            yield _tensor(f"{block}.ffn_gate", self.feed_forward, self.width)
            yield _tensor(f"{block}.ffn_up", self.feed_forward, self.width)
            yield _tensor(f"{block}.ffn_down", self.width, self.feed_forward)
        yield _tensor("output_norm", self.width)


def _tensor(name: str, *shape: int) -> TensorInfo:
    return TensorInfo(f"{name}.weight", shape, TensorType.F32)
