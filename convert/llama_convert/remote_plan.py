"""Plans for models that are not fetched yet, made from the hub's listing and from a source's configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_convert.checkpoint.tensor import DType
from llama_convert.convert import ConvertOptions
from llama_convert.errors import SourceNotFound
from llama_convert.files import read_json
from llama_convert.gguf.tensor_types import TensorType
from llama_convert.gguf.values import Metadata
from llama_convert.gguf.writer import TensorInfo
from llama_convert.hub.listing import Listing, RemoteFile
from llama_convert.hub.select import GGUFChoice
from llama_convert.machine import memory_bytes
from llama_convert.model.llama_config import MOST_INNER, MOST_WIDTH, LlamaConfig, from_hf, from_meta
from llama_convert.model.numbers import Numbers
from llama_convert.model.tensor_specs import bias_of, expected_tensors
from llama_convert.output.write_model import TYPES, Layout, layout_of
from llama_convert.plan import Plan, PlannedModel, make_plan
from llama_convert.vocab.chat_template import chosen_template
from llama_convert.vocab.load import load_hf_vocabulary, load_meta_vocabulary
from llama_convert.vocab.vocabulary import Vocabulary

_WORKING_MEMORY = 1 << 30
_DTYPES = {"float16": DType.F16, "bfloat16": DType.BF16, "float32": DType.F32}


def plan_download(listing: Listing, choice: GGUFChoice, disk_free: int) -> Plan:
    """The plan for a ready-made model; running it is taken to need 1 GiB more, since its shape is not known yet."""
    memory = choice.nbytes + _WORKING_MEMORY
    model = PlannedModel(choice.quantization, choice.nbytes, 0.0, {}, memory, 0.0, "ready-made")
    return Plan(
        name=listing.repository,
        dtype=choice.quantization,
        fetch_bytes=choice.nbytes,
        unquantized_bytes=0,
        disk_needed=choice.nbytes,
        disk_free=disk_free,
        memory=memory_bytes(),
        context=0,
        models=[model],
    )


def plan_remote(folder: Path, options: ConvertOptions, weights: Sequence[RemoteFile], disk_free: int) -> Plan:
    """The plan for a source of which only the small files are in `folder`; `weights` are those still to fetch.

    Which tensors there are, and their shapes, follows from the configuration.
    """
    config, vocabulary, dtype = describe_source(folder)
    vocabulary.fit(config.vocab_size)
    dtype = options.outtype or dtype
    name = options.source.name or folder.name
    config = config.with_context(options.source.context)
    template = chosen_template(options.source.chat_template, folder, read_json(folder / "tokenizer_config.json"), name)
    layout = _layout(config, dtype, folder, name, {**vocabulary.metadata(), **template})
    return make_plan(
        name,
        config,
        layout,
        list(options.quantizations),
        fetch_bytes=sum(file.size for file in weights),
        disk_free=disk_free,
        keeps_original=options.writes_unquantized,
    )


def describe_source(folder: Path) -> tuple[LlamaConfig, Vocabulary, DType]:
    config = read_json(folder / "config.json")
    if config:
        dtype = _DTYPES.get(str(config.get("dtype") or config.get("torch_dtype")), DType.F16)
        return from_hf(config, folder / "config.json"), load_hf_vocabulary(folder, config)[0], dtype
    params = read_json(folder / "params.json")
    if not params:
        raise SourceNotFound(f"{folder}: the repository holds neither config.json nor params.json")
    vocabulary = load_meta_vocabulary(folder)[0]
    rows, inner = len(vocabulary.tokens), _feed_forward_length(params, folder)
    return from_meta(params, folder / "params.json", vocab_size=rows, feed_forward_length=inner), vocabulary, DType.BF16


def _feed_forward_length(params: dict[str, Any], folder: Path) -> int:
    """The width of the feed-forward layer as Meta's reference code computes it; used before the weights are fetched."""
    numbers = Numbers(params, folder / "params.json")
    inner = int(min(2 * 4 * numbers.count("dim", MOST_WIDTH) / 3 * numbers.real("ffn_dim_multiplier", 1), MOST_INNER))
    multiple = numbers.count("multiple_of", MOST_INNER)
    return multiple * -(-inner // multiple)


def _layout(config: LlamaConfig, dtype: DType, folder: Path, name: str, extra: Metadata) -> Layout:
    raw = read_json(folder / "config.json")
    tensors = []
    for spec in expected_tensors(config):
        if spec.name == "output.weight" and config.tied_embeddings:
            continue
        tensors.append(TensorInfo(spec.name, spec.shape, TYPES[dtype if len(spec.shape) > 1 else DType.F32]))
        bias = bias_of(spec)
        flag = "attention_bias" if ".attn_" in spec.name else "mlp_bias"
        if bias and raw.get(flag):
            tensors.append(TensorInfo(bias.name, bias.shape, TensorType.F32))
    return layout_of(name, folder, config, tensors, dtype, extra)
