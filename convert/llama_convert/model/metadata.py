"""The metadata of a GGUF file of a Llama: what it is, and the numbers of its architecture."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llama_convert.errors import CorruptSource
from llama_convert.files import read_json
from llama_convert.gguf.tensor_types import QUANTIZATION_VERSION
from llama_convert.gguf.values import Metadata, Value, f32, i32, string, strings, u32
from llama_convert.model.card import read_card
from llama_convert.model.llama_config import LlamaConfig

_UNITS = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K"))
_SAMPLING: dict[str, tuple[str, Callable[[Any], Value]]] = {
    "top_k": ("top_k", i32),
    "top_p": ("top_p", f32),
    "min_p": ("min_p", f32),
    "temperature": ("temp", f32),
    "repetition_penalty": ("penalty_repeat", f32),
}


def general_metadata(name: str, folder: Path, parameters: int) -> Metadata:
    """The `general.*` values: name, size, licence, languages, and the sampling that the makers recommend."""
    card = read_card(folder / "README.md")
    values: Metadata = {"general.architecture": string("llama"), "general.type": string("model")}
    values |= _sampling(folder)
    values["general.name"] = string(card.get("model_name", [title(name)])[0])
    values["general.size_label"] = string(size_label(parameters))
    for key in ("license", "license_name", "license_link"):
        if len(card.get(key, [])) == 1:
            values[f"general.{key.replace('_', '.')}"] = string(card[key][0])
    tags = [*card.get("tags", []), *card.get("pipeline_tag", [])]
    if tags:
        values["general.tags"] = strings(tags)
    if "language" in card:
        values["general.languages"] = strings(card["language"])
    return values


def llama_metadata(config: LlamaConfig, file_type: int) -> Metadata:
    """The `llama.*` values, and how the weights are stored."""
    values: Metadata = {
        "llama.block_count": u32(config.block_count),
        "llama.context_length": u32(config.context_length),
        "llama.embedding_length": u32(config.embedding_length),
        "llama.feed_forward_length": u32(config.feed_forward_length),
        "llama.attention.head_count": u32(config.head_count),
        "llama.attention.head_count_kv": u32(config.head_count_kv),
        **config.rope.metadata(),
        "llama.attention.layer_norm_rms_epsilon": f32(config.rms_epsilon),
    }
    if config.explicit_head_dim:
        values["llama.attention.key_length"] = u32(config.head_dim)
        values["llama.attention.value_length"] = u32(config.head_dim)
    values["general.file_type"] = u32(file_type)
    values["llama.vocab_size"] = u32(config.vocab_size)
    values["llama.rope.dimension_count"] = u32(config.head_dim)
    values["general.quantization_version"] = u32(QUANTIZATION_VERSION)
    return values


def title(name: str) -> str:
    """A name as a title: "llama-2-7b-chat" becomes "Llama 2 7b Chat"; versions and sizes keep their letters."""
    words = name.replace("-", " ").split()
    return " ".join(word.title() if word.islower() and not re.match(r"v?\d", word) else word for word in words)


def size_label(parameters: int) -> str:
    """A number of parameters in two digits or more: "6.7B", "135M"."""
    divisor, suffix = next((unit for unit in _UNITS if parameters >= unit[0]), _UNITS[-1])
    scaled = parameters / divisor
    return f"{scaled:.{1 if round(scaled, 1) < 10 else 0}f}{suffix}"


def _sampling(folder: Path) -> Metadata:
    path = folder / "generation_config.json"
    found: Metadata = {}
    config = read_json(path)
    for name, (key, make) in _SAMPLING.items():
        if isinstance(config.get(name), int | float):
            try:
                found[f"general.sampling.{key}"] = make(config[name])
            except ValueError as error:
                raise CorruptSource(f"{path}: {name} makes no sense: {error}") from error
    return found
