"""How large a quantisation becomes: exactly, from llama.cpp's own dry run on a file without weights."""

from __future__ import annotations

from dataclasses import dataclass

from llama_convert.files import temporary_folder
from llama_convert.gguf.tensor_types import TensorType, aligned, tensor_nbytes
from llama_convert.gguf.writer import data_nbytes, header, write_sparse
from llama_convert.output.write_model import Layout
from llama_convert.progress import Silent
from llama_convert.quant.file_types import Quantization
from llama_convert.worker.child_process import run_worker
from llama_convert.worker.messages import Quantized, Sized, SizeTask

_TYPES = {kind.name.upper(): kind for kind in TensorType}


@dataclass(frozen=True, slots=True)
class QuantizedSize:
    """The size of the file in bytes, bits per weight, and how many tensors fell back to which type."""

    quantization: Quantization
    nbytes: int
    bits_per_weight: float
    fallbacks: dict[str, int]


def unquantized_size(layout: Layout) -> int:
    """Bytes of the file that a checkpoint is written as."""
    return len(header(layout.metadata, layout.tensors)) + data_nbytes(layout.tensors)


def quantized_sizes(layout: Layout, quantizations: list[Quantization]) -> list[QuantizedSize]:
    """The size of each of `quantizations` of a checkpoint with this layout. No weights are read."""
    with temporary_folder() as folder:
        path = folder / "hollow.gguf"
        write_sparse(path, layout.metadata, layout.tensors)
        types = [quantization.file_type for quantization in quantizations]
        result = run_worker("size", Silent(), SizeTask(str(path), types), Sized)
    return [_size(layout, *pair) for pair in zip(quantizations, result.sizes, strict=True)]


def _size(layout: Layout, quantization: Quantization, result: Quantized) -> QuantizedSize:
    kinds = [_TYPES[result.types.get(tensor.name, tensor.kind.name).upper()] for tensor in layout.tensors]
    pairs = zip(layout.tensors, kinds, strict=True)
    data = sum(aligned(tensor_nbytes(kind, tensor.elements)) for tensor, kind in pairs)
    weights = sum(tensor.elements for tensor in layout.tensors)
    nbytes = len(header(layout.metadata, layout.tensors)) + data
    return QuantizedSize(quantization, nbytes, 8 * data / weights, result.fallbacks)
