"""Writes a GGUF file from front to back: the header is known before the first byte of a tensor."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from llama_convert.gguf.tensor_types import ALIGNMENT, MAGIC, VERSION, TensorType, aligned, tensor_nbytes
from llama_convert.gguf.values import Metadata, encode_string


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as the header describes it; `shape` is row-major, the innermost dimension last."""

    name: str
    shape: tuple[int, ...]
    kind: TensorType

    @property
    def elements(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        return tensor_nbytes(self.kind, self.elements)


def header(metadata: Metadata, tensors: Sequence[TensorInfo]) -> bytes:
    """Everything before the tensors' data, padded to the alignment."""
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    parts += [encode_string(key) + value.encode() for key, value in metadata.items()]
    offset = 0
    for tensor in tensors:
        dims = tensor.shape[::-1]
        parts.append(encode_string(tensor.name))
        parts.append(struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, tensor.kind, offset))
        offset += aligned(tensor.nbytes)
    raw = b"".join(parts)
    return raw + bytes(aligned(len(raw)) - len(raw))


def data_nbytes(tensors: Sequence[TensorInfo]) -> int:
    """Bytes of all tensors with the padding behind each."""
    return sum(aligned(tensor.nbytes) for tensor in tensors)


def write_sparse(path: Path, metadata: Metadata, tensors: Sequence[TensorInfo]) -> None:
    """Writes a file with the header and, in place of the data, a hole of the right size.

    llama.cpp can open it and compute the sizes of a quantisation in a dry run. It takes a few hundred KB of the disk.
    """
    head = header(metadata, tensors)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + data_nbytes(tensors))


class GGUFWriter:
    """An open GGUF file whose tensors' data are appended in the order of `tensors`."""

    def __init__(self, path: Path, metadata: Metadata, tensors: Sequence[TensorInfo]) -> None:
        names = [tensor.name for tensor in tensors]
        if len(set(names)) != len(names):
            raise ValueError("two tensors have the same name")
        self._pending = list(reversed(tensors))
        self._left = 0
        self._file: BinaryIO = path.open("wb", buffering=0)
        self._put(header(metadata, tensors))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def begin(self, name: str) -> None:
        """Starts tensor `name`, to which the next bytes belong."""
        if self._left or not self._pending or self._pending[-1].name != name:
            raise ValueError(f"tensor {name} is not the next one in the header")
        self._left = self._pending[-1].nbytes

    def write(self, data: memoryview, identical_range: tuple[Path, int] | None = None) -> None:
        """Appends `data` to the tensor that was begun.

        `identical_range` is a file and an offset at which the same bytes are stored. The system then copies them,
        which was measured to be about twice as fast as from memory while other processes keep the machine busy.
        """
        if data.nbytes > self._left:
            raise ValueError(f"tensor {self._pending[-1].name} is longer than its header says")
        copied = self._copy(*identical_range, data.nbytes) if identical_range else 0
        self._put(data[copied:])
        self._left -= data.nbytes

    def end(self) -> None:
        """Pads the tensor that was begun; all of its bytes must have been written."""
        tensor = self._pending.pop()
        if self._left:
            raise ValueError(f"tensor {tensor.name} is {self._left} bytes shorter than its header says")
        padding = aligned(tensor.nbytes, ALIGNMENT) - tensor.nbytes
        if padding:
            self._put(bytes(padding))

    def finish(self) -> None:
        """Checks that every tensor was written."""
        if self._pending:
            raise ValueError(f"tensor {self._pending[-1].name} was not written")

    def _copy(self, path: Path, offset: int, count: int) -> int:
        """Has the system append a range of another file, and returns how many bytes it copied; 0 where it cannot."""
        copied = 0
        with path.open("rb", buffering=0) as source:
            while copied < count:
                try:
                    step = os.copy_file_range(source.fileno(), self._file.fileno(), count - copied, offset + copied)
                except (AttributeError, OSError) as error:
                    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                        raise
                    return copied
                if not step:
                    return copied
                copied += step
        return copied

    def _put(self, data: bytes | memoryview) -> None:
        view = memoryview(data).cast("B")
        while view:
            view = view[self._file.write(view) :]
