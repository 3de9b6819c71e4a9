"""Writes small random Llamas to disk, in the layouts in which checkpoints are published."""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]

_SAFE_NAMES = {"<f4": "F32", "<f2": "F16", "<u2": "BF16", "<i4": "I32", "<i8": "I64"}
_STORAGES = {"<f4": "FloatStorage", "<f2": "HalfStorage", "<u2": "BFloat16Storage", "<i4": "IntStorage"}


@dataclass(frozen=True)
class TinyLlama:
    """The shape of a test model; the KV heads are fewer than the heads, and no count divides another by accident."""

    layers: int = 3
    width: int = 256
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 32
    inner: int = 352
    vocab: int = 1024
    tied: bool = False
    biases: bool = False
    scaling: dict[str, Any] | None = None

    def config(self, **more: Any) -> dict[str, Any]:
        """Its `config.json`."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": self.width,
            "intermediate_size": self.inner,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "num_hidden_layers": self.layers,
            "vocab_size": self.vocab,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "max_position_embeddings": 256,
            "tie_word_embeddings": self.tied,
            "attention_bias": self.biases,
            "mlp_bias": self.biases,
            "rope_scaling": self.scaling,
            **more,
        }

    def params(self, **more: Any) -> dict[str, Any]:
        """Its `params.json`."""
        counts = {"n_layers": self.layers, "n_heads": self.heads, "n_kv_heads": self.kv_heads}
        return {"dim": self.width, **counts, "vocab_size": -1, "norm_eps": 1e-5, **more}


def random_weights(model: TinyLlama, seed: int = 0, dtype: Any = np.float32) -> dict[str, Array]:
    """Random weights in the Hugging Face layout. The embeddings are wide, so that errors in the rope show."""
    random = np.random.default_rng(seed)

    def draw(*shape: int, scale: float) -> Array:
        return (random.standard_normal(shape) * scale).astype(dtype)

    width, queries, keys = model.width, model.heads * model.head_dim, model.kv_heads * model.head_dim
    weights = {"model.embed_tokens.weight": draw(model.vocab, width, scale=1.0)}
    for layer in range(model.layers):
        shapes = {
            "self_attn.q_proj": (queries, width),
            "self_attn.k_proj": (keys, width),
            "self_attn.v_proj": (keys, width),
            "self_attn.o_proj": (width, queries),
            "mlp.gate_proj": (model.inner, width),
            "mlp.up_proj": (model.inner, width),
            "mlp.down_proj": (width, model.inner),
        }
        for name, shape in shapes.items():
            weights[f"model.layers.{layer}.{name}.weight"] = draw(*shape, scale=1.5 / shape[1] ** 0.5)
            if model.biases:
                weights[f"model.layers.{layer}.{name}.bias"] = draw(shape[0], scale=0.3)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{name}.weight"] = 1 + draw(width, scale=0.1)
    weights["model.norm.weight"] = 1 + draw(width, scale=0.1)
    if not model.tied:
        weights["lm_head.weight"] = draw(model.vocab, width, scale=1 / width**0.5)
    return weights


def write_safetensors(path: Path, tensors: Tensors) -> None:
    """One safetensors file; unsigned 16-bit arrays are taken for BF16."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, array in tensors.items():
        ends = [offset, offset + array.nbytes]
        header[name] = {"dtype": _SAFE_NAMES[array.dtype.str], "shape": list(array.shape), "data_offsets": ends}
        offset += array.nbytes
    raw = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())


def write_hf_folder(folder: Path, model: TinyLlama, weights: Tensors, shards: int = 1, **config: Any) -> Path:
    """`config.json` and the weights in `shards` files with an index; the tokenizer is left to the caller."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model.config(**config)))
    if shards == 1:
        write_safetensors(folder / "model.safetensors", weights)
        return folder
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {key: weights[key] for key in list(weights)[shard::shards]}
        weight_map |= dict.fromkeys(part, name)
        write_safetensors(folder / name, part)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


META_NAMES = {
    "self_attn.q_proj": ("attention.wq", 0),
    "self_attn.k_proj": ("attention.wk", 0),
    "self_attn.v_proj": ("attention.wv", 0),
    "self_attn.o_proj": ("attention.wo", 1),
    "mlp.gate_proj": ("feed_forward.w1", 0),
    "mlp.up_proj": ("feed_forward.w3", 0),
    "mlp.down_proj": ("feed_forward.w2", 1),
    "input_layernorm": ("attention_norm", None),
    "post_attention_layernorm": ("ffn_norm", None),
}


def meta_weights(model: TinyLlama, weights: Tensors) -> dict[str, tuple[Array, int | None]]:
    """The same weights in Meta's layout, each with the axis along which shards split it."""
    found: dict[str, tuple[Array, int | None]] = {
        "tok_embeddings.weight": (weights["model.embed_tokens.weight"], 1),
        "norm.weight": (weights["model.norm.weight"], None),
        "output.weight": (weights["lm_head.weight"], 0),
    }
    for layer in range(model.layers):
        for name, (meta, axis) in META_NAMES.items():
            array = weights[f"model.layers.{layer}.{name}.weight"]
            if name.endswith(("q_proj", "k_proj")):
                array = interleave(array, model.head_dim)
            found[f"layers.{layer}.{meta}.weight"] = (array, axis)
    return found


def interleave(array: Array, head_dim: int) -> Array:
    """Rows h·D + s·D/2 + j moved to h·D + 2j + s, one at a time: the definition, not the implementation."""
    out = np.empty_like(array)
    for row in range(len(array)):
        head, within = divmod(row, head_dim)
        half, pair = divmod(within, head_dim // 2)
        out[head * head_dim + 2 * pair + half] = array[row]
    return out


def unpermute_rows(rows: Array, head_dim: int) -> Array:
    """Rows in ggml's order, put into Hugging Face's."""
    heads, columns = len(rows) // head_dim, rows.shape[1:]
    halves = rows.reshape(heads, head_dim // 2, 2, *columns).swapaxes(1, 2)
    return np.ascontiguousarray(halves.reshape(rows.shape))


def write_meta_folder(folder: Path, model: TinyLlama, weights: Tensors, shards: int, **params: Any) -> Path:
    """`params.json` and `consolidated.*.pth`, with rope tables that a converter has to leave out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.json").write_text(json.dumps(model.params(**params)))
    for shard in range(shards):
        part: dict[str, Array] = {"rope.freqs": np.ones(model.head_dim // 2, np.float32)}
        for name, (array, axis) in meta_weights(model, weights).items():
            part[name] = array if axis is None else np.split(array, shards, axis)[shard]
        write_torch_file(folder / f"consolidated.{shard:02d}.pth", part)
    return folder


def write_torch_file(path: Path, tensors: Tensors, transposed: frozenset[str] = frozenset()) -> None:
    """A file as `torch.save` writes it: a zip of a pickle and one stored member for each tensor.

    Tensors named in `transposed` are stored column by column, as a saved view of a transposed tensor is.
    """
    storages: dict[str, bytes] = {}
    with _pretend_torch() as (rebuild, storage_types):
        state: OrderedDict[str, Any] = OrderedDict()
        for index, (name, array) in enumerate(tensors.items()):
            turned = name in transposed
            storages[str(index)] = np.ascontiguousarray(array.T if turned else array).tobytes()
            strides = [step // array.itemsize for step in np.ascontiguousarray(array.T if turned else array).strides]
            storage = _Storage(storage_types[array.dtype.str], str(index), array.size)
            stride = tuple(reversed(strides)) if turned else tuple(strides)
            state[name] = _Tensor(rebuild, storage, array.shape, stride)
        raw = io.BytesIO()
        _TorchPickler(raw, protocol=2).dump(state)
    write_torch_zip(path, raw.getvalue(), storages)


def write_torch_zip(path: Path, pickled: bytes, storages: Mapping[str, bytes]) -> None:
    """The zip around a pickle."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", "3\n")


@dataclass
class _Storage:
    kind: Any
    key: str
    elements: int


@dataclass
class _Tensor:
    rebuild: Any
    storage: _Storage
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return self.rebuild, (self.storage, 0, self.shape, self.stride, False, OrderedDict())


class _TorchPickler(pickle.Pickler):
    def persistent_id(self, item: Any) -> Any:
        if isinstance(item, _Storage):
            return "storage", item.kind, item.key, "cpu", item.elements
        return None


@contextmanager
def _pretend_torch() -> Iterator[tuple[Any, dict[str, Any]]]:
    """Modules named as PyTorch's, so that the pickle names what PyTorch's would."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2() -> None: ...

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils.__dict__["_rebuild_tensor_v2"] = _rebuild_tensor_v2
    kinds = {code: type(name, (), {"__module__": "torch"}) for code, name in _STORAGES.items()}
    torch.__dict__.update({kind.__name__: kind for kind in kinds.values()})
    with mock.patch.dict(sys.modules, {"torch": torch, "torch._utils": utils}):
        yield _rebuild_tensor_v2, kinds
