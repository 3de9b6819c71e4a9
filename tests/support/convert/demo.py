"""The demo model taken apart: its weights dequantised, its tokenizer rebuilt, both as a Hugging Face folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llama_convert.gguf.reader import GGUFFile
from llama_convert.gguf.tensor_types import TensorType, TokenType
from llama_convert.model.llama_config import LlamaConfig
from llama_convert.model.rope import Rope
from llama_convert.model.tensor_specs import TensorSpec, expected_tensors
from tests.support.convert.layouts import Array, unpermute_rows, write_safetensors


def config_of(file: GGUFFile) -> LlamaConfig:
    """The configuration that a GGUF file was made from."""
    heads, width = file.get("llama.attention.head_count"), file.get("llama.embedding_length")
    return LlamaConfig(
        block_count=file.get("llama.block_count"),
        embedding_length=width,
        feed_forward_length=file.get("llama.feed_forward_length"),
        head_count=heads,
        head_count_kv=file.get("llama.attention.head_count_kv"),
        head_dim=width // heads,
        vocab_size=len(file.get("tokenizer.ggml.tokens")),
        context_length=file.get("llama.context_length"),
        rms_epsilon=round(file.get("llama.attention.layer_norm_rms_epsilon"), 8),
        rope=Rope(file.get("llama.rope.freq_base")),
        tied_embeddings="output.weight" not in file.tensors,
    )


def dequantised(file: GGUFFile, name: str) -> npt.NDArray[np.float32]:
    """A tensor as F32."""
    info, raw = file.tensors[name].info, file.data(name)
    if info.kind is TensorType.F32:
        return raw.view(np.float32).reshape(info.shape)
    if info.kind is TensorType.Q8_0:
        blocks = raw.reshape(-1, 34)
        scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
        return (blocks[:, 2:].view(np.int8) * scale).reshape(info.shape)
    assert info.kind is TensorType.Q4_1
    blocks = raw.reshape(-1, 20)
    scale, least = (blocks[:, at : at + 2].copy().view(np.float16).astype(np.float32) for at in (0, 2))
    digits = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1)
    return (digits * scale + least).astype(np.float32).reshape(info.shape)


def write_demo_folder(folder: Path, file: GGUFFile) -> dict[str, Array]:
    """Write the folder, F16; the tensors by their GGUF names as they must come back."""
    folder.mkdir(parents=True)
    config = config_of(file)
    wanted = {
        spec.name: dequantised(file, spec.name).astype(np.float16)
        for spec in expected_tensors(config)
        if spec.name in file.tensors
    }
    specs = {spec.name: spec for spec in expected_tensors(config)}
    write_safetensors(
        folder / "model.safetensors",
        {specs[name].hf: _hf_rows(specs[name], config, array) for name, array in wanted.items()},
    )
    (folder / "config.json").write_text(json.dumps(hf_config(config, file)))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(file)))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(file)))
    return wanted


def _hf_rows(spec: TensorSpec, config: LlamaConfig, array: Array) -> Array:
    return unpermute_rows(array, config.head_dim) if spec.heads else array


def hf_config(config: LlamaConfig, file: GGUFFile) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": config.embedding_length,
        "intermediate_size": config.feed_forward_length,
        "num_attention_heads": config.head_count,
        "num_key_value_heads": config.head_count_kv,
        "num_hidden_layers": config.block_count,
        "vocab_size": config.vocab_size,
        "rms_norm_eps": config.rms_epsilon,
        "max_position_embeddings": config.context_length,
        "tie_word_embeddings": config.tied_embeddings,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope.theta},
        "bos_token_id": file.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": file.get("tokenizer.ggml.eos_token_id"),
        "dtype": "float16",
    }


def tokenizer_json(file: GGUFFile) -> dict[str, Any]:
    """The `tokenizer.json` that SmolLM2 comes with, rebuilt from the GGUF file."""
    tokens, types = file.get("tokenizer.ggml.tokens"), file.get("tokenizer.ggml.token_type")
    special = [index for index, kind in enumerate(types) if kind == TokenType.CONTROL]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "added_tokens": [_added(index, tokens[index]) for index in special],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": {text: index for index, text in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in file.get("tokenizer.ggml.merges")],
        },
    }


def _added(index: int, text: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": text, "special": True, **flags}


def tokenizer_config(file: GGUFFile) -> dict[str, Any]:
    tokens = file.get("tokenizer.ggml.tokens")
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    found = {f"{name}_token": tokens[file.get(f"tokenizer.ggml.{key}_token_id")] for name, key in names.items()}
    return found | {"chat_template": file.get("tokenizer.chat_template")}
