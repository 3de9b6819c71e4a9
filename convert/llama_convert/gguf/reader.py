"""Reads the header of a GGUF file, and its tensors as memory maps."""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llama_convert.errors import CorruptSource, SourceNotFound
from llama_convert.gguf.tensor_types import ALIGNMENT, MAGIC, TensorType, ValueType, aligned
from llama_convert.gguf.values import SCALARS, Metadata, Value
from llama_convert.gguf.writer import TensorInfo
from llama_convert.untrusted import excerpt, open_regular

_MOST_HEADER = 64 << 20
"""Bytes; the header of a model with 262,144 tokens and their merges has a quarter of that."""
_MOST_VALUES = 10_000
_MOST_ITEMS = 4 << 20
"""Items of all arrays together."""
_MOST_TENSORS = 1 << 16
_MOST_AXES = 4
_LONGEST_TEXT = 1000
_MOST_ALIGNMENT = 1 << 16


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """A tensor of an existing file; `offset` counts bytes from the start of the file."""

    info: TensorInfo
    offset: int


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """The header of a GGUF file."""

    path: Path
    metadata: Metadata
    tensors: dict[str, GGUFTensor]

    def get(self, key: str, default: Any = None) -> Any:
        """The plain value of a metadata key."""
        return self.metadata[key].value if key in self.metadata else default

    def text(self, key: str) -> str | None:
        """The value of a metadata key where it is a short printable text, else None."""
        found = self.get(key)
        return found if isinstance(found, str) and len(found) <= _LONGEST_TEXT and found.isprintable() else None

    def data(self, name: str) -> npt.NDArray[np.uint8]:
        """The bytes of a tensor, as a read-only memory map."""
        tensor = self.tensors[name]
        return np.memmap(self.path, np.uint8, "r", tensor.offset, (tensor.info.nbytes,))


def read_gguf(path: Path) -> GGUFFile:
    """Reads and checks the header of `path`.

    Raises SourceNotFound where there is no such file, and CorruptSource where it is not a GGUF file, or is shorter than
    its header says.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            with mmap.mmap(file.fileno(), min(size, _MOST_HEADER), access=mmap.ACCESS_READ) as raw:
                return _parse(path, raw, size)
    except OSError as error:
        raise SourceNotFound(f"{path}: {error.strerror}") from error
    except (struct.error, ValueError) as error:
        raise CorruptSource(f"{path}: the GGUF header is broken or cut short ({error})") from error


def _parse(path: Path, raw: mmap.mmap, size: int) -> GGUFFile:
    if raw[:4] != MAGIC:
        raise CorruptSource(f"{path}: not a GGUF file")
    cursor = _Cursor(raw, 4)
    version, tensor_count, value_count = cursor.unpack("IQQ")
    if version not in (2, 3):
        raise CorruptSource(f"{path}: GGUF version {version} is not known")
    if tensor_count > _MOST_TENSORS or value_count > _MOST_VALUES:
        raise ValueError(f"{tensor_count} tensors and {value_count} values")
    metadata = {cursor.string(): cursor.value() for _ in range(value_count)}
    infos = [cursor.tensor() for _ in range(tensor_count)]
    start = aligned(cursor.offset, _alignment(metadata))
    tensors = {info.name: GGUFTensor(info, start + offset) for info, offset in infos}
    _check(path, tensors, tensor_count, size)
    return GGUFFile(path, metadata, tensors)


def _alignment(metadata: Metadata) -> int:
    found = metadata["general.alignment"].value if "general.alignment" in metadata else ALIGNMENT
    if type(found) is not int or not 1 <= found <= _MOST_ALIGNMENT:
        raise ValueError(f"general.alignment is {excerpt(found)}")
    return found


def _check(path: Path, tensors: dict[str, GGUFTensor], count: int, size: int) -> None:
    if len(tensors) != count:
        raise CorruptSource(f"{path}: two tensors have the same name")
    for tensor in tensors.values():
        if tensor.offset + tensor.info.nbytes > size:
            raise CorruptSource(f"{path}: tensor {excerpt(tensor.info.name)} reaches past the end of the file")


@dataclass(slots=True)
class _Cursor:
    """A position in the header, which each read moves on."""

    raw: mmap.mmap
    offset: int
    items_read: int = 0

    def unpack(self, code: str) -> tuple[Any, ...]:
        layout = struct.Struct(f"<{code}")
        values = layout.unpack_from(self.raw, self.offset)
        self.offset += layout.size
        return values

    def string(self) -> str:
        (length,) = self.unpack("Q")
        text = self.raw[self.offset : self.offset + length]
        if len(text) != length:
            raise ValueError("a string reaches past the end")
        self.offset += length
        return text.decode("utf-8", errors="surrogateescape")

    def value(self) -> Value:
        kind = ValueType(self.unpack("I")[0])
        if kind is not ValueType.ARRAY:
            return Value(kind, self.items(kind, 1)[0])
        item, count = self.unpack("IQ")
        return Value(kind, self.items(ValueType(item), count), ValueType(item))

    def items(self, kind: ValueType, count: int) -> list[Any]:
        self.items_read += count
        if self.items_read > _MOST_ITEMS:
            raise ValueError(f"{self.items_read} items in arrays")
        if kind is ValueType.STRING:
            return [self.string() for _ in range(count)]
        if kind not in SCALARS:
            raise ValueError("an array of arrays")
        return list(self.unpack(f"{count}{SCALARS[kind]}"))

    def tensor(self) -> tuple[TensorInfo, int]:
        name = self.string()
        (rank,) = self.unpack("I")
        if rank > _MOST_AXES:
            raise ValueError(f"a tensor with {rank} axes")
        *dims, kind, offset = self.unpack(f"{rank}QIQ")
        return TensorInfo(name, tuple(reversed(dims)), TensorType(kind)), offset
