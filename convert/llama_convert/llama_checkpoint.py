"""A checkpoint of a Llama in a folder, whichever layout it has: configuration, tensors by role, vocabulary."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llama_convert.checkpoint.hf_folder import read_hf_tensors
from llama_convert.checkpoint.meta_folder import read_meta_tensors, shard_files
from llama_convert.checkpoint.tensor import DType, SourceTensor, row_shape
from llama_convert.errors import CorruptSource, SourceNotFound, UsageError, only_adapter
from llama_convert.files import read_json
from llama_convert.gguf.values import Metadata
from llama_convert.model.llama_config import LlamaConfig, from_hf, from_meta
from llama_convert.model.model_tensors import ModelTensor, model_tensors
from llama_convert.untrusted import MOST_TOKENS, excerpt, is_plain_name
from llama_convert.vocab.chat_template import chosen_template
from llama_convert.vocab.load import load_hf_vocabulary, load_meta_vocabulary
from llama_convert.vocab.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint, ready to be written as GGUF. `files` are all inputs that its content depends on."""

    folder: Path
    name: str
    config: LlamaConfig
    tensors: Sequence[ModelTensor]
    vocabulary: Vocabulary
    template: Metadata
    files: Sequence[Path]
    warnings: Sequence[str]

    @property
    def dtype(self) -> DType:
        """The type that most of the weights have."""
        sizes = dict.fromkeys(DType, 0)
        for tensor in self.tensors:
            rows, columns = row_shape(tensor.source.shape)
            sizes[tensor.source.dtype] += rows * columns
        return max(DType, key=lambda dtype: sizes[dtype])


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What the user says about a source: its name, the context, the chat template (None: as found), epsilon."""

    name: str | None = None
    context: int | None = None
    chat_template: str | None = None
    rms_epsilon: float | None = None


def open_checkpoint(folder: Path, options: SourceOptions | None = None) -> Checkpoint:
    """Opens the checkpoint in `folder`; headers are read and checked, weights are not.

    Raises SourceError where it cannot be converted; the message names the file and the reason.
    """
    options = options or SourceOptions()
    if not os.path.isdir(folder):  # noqa: PTH112 - unlike Path.is_dir it answers for any name
        raise SourceNotFound(f"{folder}: no such folder")
    open_layout = _open_meta if shard_files(folder) and not (folder / "config.json").is_file() else _open_hf
    try:
        return open_layout(folder, options)
    except OSError as error:
        raise SourceNotFound(f"{error.filename or folder}: cannot be read ({error.strerror})") from error


def _model_name(folder: Path, options: SourceOptions) -> str:
    """The name that the user gives, or else the folder's; the names of the model's files begin with it.

    Raises UsageError where it cannot be part of a file name.
    """
    name = options.name or folder.resolve().name
    if not is_plain_name(name):
        why = "a name has 1 to 200 printable bytes without slashes, and starts with neither a dot nor a dash"
        raise UsageError(f"{excerpt(name)} cannot be the name of a model: {why} (--name)")
    return name


def _open_hf(folder: Path, options: SourceOptions) -> Checkpoint:
    raw = read_json(folder / "config.json")
    if not raw and (folder / "adapter_config.json").is_file():
        raise only_adapter(folder)
    if not raw:
        raise SourceNotFound(f"{folder}: holds no config.json")
    config = from_hf(raw, folder / "config.json")
    tensors, files = read_hf_tensors(folder)
    embedding = tensors.get("model.embed_tokens.weight")
    if embedding is not None:
        config = replace(config, vocab_size=_rows(embedding))
    found, warnings = model_tensors(config, tensors, folder, meta=False)
    config, more = _adjusted(config, options)
    vocabulary, inputs = load_hf_vocabulary(folder, raw)
    name = _model_name(folder, options)
    template = chosen_template(options.chat_template, folder, read_json(folder / "tokenizer_config.json"), name)
    inputs = [folder / "config.json", *inputs, *files]
    return _checkpoint(folder, name, config, found, vocabulary, template, inputs, [*warnings, *more])


def _open_meta(folder: Path, options: SourceOptions) -> Checkpoint:
    params = folder / "params.json"
    raw = read_json(params)
    if not raw:
        raise SourceNotFound(f"{folder}: holds no params.json")
    tensors, files = read_meta_tensors(folder)
    config = _meta_config(raw, params, tensors)
    found, warnings = model_tensors(config, tensors, folder, meta=True)
    config, more = _adjusted(config, options)
    vocabulary, inputs = load_meta_vocabulary(folder)
    name = _model_name(folder, options)
    template = chosen_template(options.chat_template, folder, {}, name)
    return _checkpoint(folder, name, config, found, vocabulary, template, [params, *inputs, *files], [*warnings, *more])


def _rows(tensor: SourceTensor) -> int:
    if len(tensor.shape) != 2 or not 1 <= tensor.shape[0] <= MOST_TOKENS:
        raise CorruptSource(
            f"{tensor.origin}: {tensor.name} has shape {list(tensor.shape)}, which no matrix of a Llama has"
        )
    return tensor.shape[0]


def _meta_config(raw: dict[str, Any], params: Path, tensors: dict[str, SourceTensor]) -> LlamaConfig:
    try:
        rows, width = _rows(tensors["tok_embeddings.weight"]), _rows(tensors["layers.0.feed_forward.w1.weight"])
    except KeyError as error:
        raise CorruptSource(f"{params.parent}: the weights do not hold {error.args[0]}") from error
    return from_meta(raw, params, vocab_size=rows, feed_forward_length=width)


def _adjusted(config: LlamaConfig, options: SourceOptions) -> tuple[LlamaConfig, list[str]]:
    """The configuration with the user's options, and warnings about numbers that early releases had wrong."""
    warnings = []
    llama2 = config.vocab_size in range(32000, 32032) and config.embedding_length in (4096, 5120, 8192)
    if llama2 and config.context_length == 2048 and options.context is None:
        warnings.append("early files of Llama 2 give a context of 2048 by mistake; use --context 4096 for such a file")
    if llama2 and config.rms_epsilon == 1e-6 and options.rms_epsilon is None:
        warnings.append("early files of Llama 2 give an epsilon of 1e-6 by mistake; use --rms-eps 1e-5 for such a file")
    if options.rms_epsilon is not None:
        config = replace(config, rms_epsilon=options.rms_epsilon)
    return config.with_context(options.context), warnings


def _checkpoint(
    folder: Path,
    name: str,
    config: LlamaConfig,
    tensors: Sequence[ModelTensor],
    vocabulary: Vocabulary,
    template: Metadata,
    files: Sequence[Path],
    warnings: Sequence[str],
) -> Checkpoint:
    vocabulary.fit(config.vocab_size)
    return Checkpoint(folder, name, config, tensors, vocabulary, template, files, [*warnings, *vocabulary.warnings])
