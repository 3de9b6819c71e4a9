"""Reads the header of a GGUF file, and its tensors as memory maps."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llama_convert.errors import CorruptSource, SourceNotFound
from llama_convert.gguf.types import ALIGNMENT, MAGIC, TensorType, ValueType, aligned
from llama_convert.gguf.values import SCALARS, Metadata, Value
from llama_convert.gguf.writer import TensorInfo


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of an existing file; `offset` counts bytes from the start of the file."""

    info: TensorInfo
    offset: int


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """The header of a GGUF file."""

    path: Path
    metadata: Metadata
    tensors: dict[str, StoredTensor]

    def get(self, key: str, default: Any = None) -> Any:
        """The plain value of a metadata key."""
        return self.metadata[key].value if key in self.metadata else default

    def data(self, name: str) -> npt.NDArray[np.uint8]:
        """The bytes of a tensor, as a read-only memory map."""
        tensor = self.tensors[name]
        return np.memmap(self.path, np.uint8, "r", tensor.offset, (tensor.info.nbytes,))


def read_gguf(path: Path) -> GGUFFile:
    """Read and check the header of `path`.

    Raises:
        SourceNotFound: there is no such file.
        CorruptSource: it is no GGUF file, or it is shorter than its header says.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            return _parse(path, raw)
    except OSError as error:
        raise SourceNotFound(f"{path}: {error.strerror}") from error
    except (struct.error, ValueError) as error:
        raise CorruptSource(f"{path}: the GGUF header is broken or cut short ({error})") from error


def _parse(path: Path, raw: mmap.mmap) -> GGUFFile:
    if raw[:4] != MAGIC:
        raise CorruptSource(f"{path}: not a GGUF file")
    cursor = _Cursor(raw, 4)
    version, tensor_count, value_count = cursor.unpack("IQQ")
    if version not in (2, 3):
        raise CorruptSource(f"{path}: GGUF version {version} is not known")
    metadata = {cursor.string(): cursor.value() for _ in range(value_count)}
    infos = [cursor.tensor() for _ in range(tensor_count)]
    alignment = metadata["general.alignment"].value if "general.alignment" in metadata else ALIGNMENT
    start = aligned(cursor.offset, alignment)
    tensors = {info.name: StoredTensor(info, start + offset) for info, offset in infos}
    _check(path, tensors, tensor_count)
    return GGUFFile(path, metadata, tensors)


def _check(path: Path, tensors: dict[str, StoredTensor], count: int) -> None:
    if len(tensors) != count:
        raise CorruptSource(f"{path}: two tensors have the same name")
    size = path.stat().st_size
    for tensor in tensors.values():
        if tensor.offset + tensor.info.nbytes > size:
            raise CorruptSource(f"{path}: tensor {tensor.info.name} reaches past the end of the file")


@dataclass(slots=True)
class _Cursor:
    """A place in the header that moves on with each read."""

    raw: mmap.mmap
    offset: int

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
        if kind is ValueType.STRING:
            return [self.string() for _ in range(count)]
        if count > len(self.raw):
            raise ValueError("an array reaches past the end")
        return list(self.unpack(f"{count}{SCALARS[kind]}"))

    def tensor(self) -> tuple[TensorInfo, int]:
        name = self.string()
        (rank,) = self.unpack("I")
        *dims, kind, offset = self.unpack(f"{rank}QIQ")
        return TensorInfo(name, tuple(reversed(dims)), TensorType(kind)), offset
