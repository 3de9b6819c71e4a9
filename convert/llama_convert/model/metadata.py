"""The metadata of a GGUF file of a Llama: what it is, and the numbers of its architecture."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from llama_convert.files import read_json
from llama_convert.gguf.types import QUANTIZATION_VERSION
from llama_convert.gguf.values import Metadata, Value, f32, i32, string, strings, u32
from llama_convert.model.config import LlamaConfig

_SAMPLING: Final[dict[str, tuple[str, Callable[[Any], Value]]]] = {
    "top_k": ("top_k", i32),
    "top_p": ("top_p", f32),
    "min_p": ("min_p", f32),
    "temperature": ("temp", f32),
    "repetition_penalty": ("penalty_repeat", f32),
}


def general_metadata(name: str, folder: Path, parameters: int) -> Metadata:
    """The `general.*` values: name, size, licence, languages, and the sampling that the makers recommend."""
    card = _model_card(folder)
    values: Metadata = {"general.architecture": string("llama"), "general.type": string("model")}
    values |= _sampling(read_json(folder / "generation_config.json"))
    values["general.name"] = string(str(card.get("model_name") or title(name)))
    values["general.size_label"] = string(size_label(parameters))
    for key in ("license", "license_name", "license_link"):
        if isinstance(card.get(key), str):
            values[f"general.{key.replace('_', '.')}"] = string(card[key])
    tags = [*_listed(card.get("tags")), *_listed(card.get("pipeline_tag"))]
    if tags:
        values["general.tags"] = strings(tags)
    languages = _listed(card.get("language"))
    if languages:
        values["general.languages"] = strings(languages)
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
    for divisor, suffix in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if parameters >= divisor or divisor == 10**3:
            scaled = parameters / divisor
            return f"{scaled:.{1 if round(scaled, 1) < 10 else 0}f}{suffix}"
    raise AssertionError("unreachable")


def _sampling(config: dict[str, Any]) -> Metadata:
    found = {name: config[name] for name in _SAMPLING if isinstance(config.get(name), int | float)}
    return {f"general.sampling.{_SAMPLING[name][0]}": _SAMPLING[name][1](value) for name, value in found.items()}


def _listed(entry: Any) -> list[str]:
    """A string or a list of strings, as a list."""
    items = entry if isinstance(entry, list) else [entry] if entry else []
    return [str(item) for item in items]


def _model_card(folder: Path) -> dict[str, Any]:
    """The head of README.md, which is YAML; empty where there is none that can be read."""
    from huggingface_hub import metadata_load

    path = folder / "README.md"
    try:
        return dict(metadata_load(path) or {}) if path.is_file() else {}
    except Exception:  # noqa: BLE001 - whatever a hand-written head makes the parser raise, the model does without it
        return {}
