"""Reads `.bin` and `.pth` files: since PyTorch 1.6 a zip with a pickle and one stored file for each storage."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib.stride_tricks import as_strided

from llama_convert.checkpoint.tensor import UNUSED, DType, Rows, SourceTensor, StoredTensor
from llama_convert.checkpoint.unpickler import PickledTensor, Storage, unpickle_tensors
from llama_convert.errors import ConvertError, CorruptSource, UnsupportedModel
from llama_convert.untrusted import excerpt, open_regular

_MOST_PIECE = 8 << 20
"""Bytes of the pickle, and of the zip's list of files. For Llama 2 70B both have less than a tenth."""
_LOCAL_HEADER = 30
_UNUSED = (*UNUSED, "rope.freqs")


def read_torch_file(path: Path) -> dict[str, SourceTensor]:
    """The tensors of `path` by name; those that a model does not need (rope tables, masks) are left out.

    Raises CorruptSource where the file is cut short, broken or older than PyTorch 1.6, or its pickle holds more than
    tensors, and UnsupportedModel where a tensor has another element type.
    """
    with _BoundedReader(open_regular(path).detach()) as file:
        if not zipfile.is_zipfile(file):
            raise CorruptSource(
                f"{path}: is not a zip file: cut short, or saved before PyTorch 1.6 (load and save it again)"
            )
        try:
            return _read(path, file)
        except ConvertError:
            raise
        except Exception as error:
            # A zip that was tampered with makes the library raise almost anything.
            raise CorruptSource(f"{path}: the zip is broken ({error})") from error


class _BoundedReader(io.BufferedReader):
    """A file that refuses to read a large piece at once, such as a zip's list of millions of files."""

    def read(self, size: int | None = -1, /) -> bytes:
        most = _MOST_PIECE + 1
        piece = super().read(most if size is None or size < 0 else min(size, most))
        if len(piece) == most:
            raise ValueError(f"it has a piece of more than {_MOST_PIECE} bytes")
        return piece


def _read(path: Path, file: BinaryIO) -> dict[str, SourceTensor]:
    with zipfile.ZipFile(file) as archive:
        members = _members(path, archive)
        pickles = [name for name in members if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CorruptSource(f"{path}: holds {len(pickles)} pickles named data.pkl instead of one")
        folder = pickles[0].removesuffix("data.pkl")
        tensors = unpickle_tensors(path, archive.read(pickles[0]))
    wanted = {name: tensor for name, tensor in tensors.items() if not name.endswith(_UNUSED)}
    return {name: _locate(name, tensor, path, members, folder) for name, tensor in wanted.items()}


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    members = {info.filename: info for info in infos}
    if len(members) != len(infos):
        raise CorruptSource(f"{path}: the zip holds two files of the same name")
    for info in infos:
        if info.filename.endswith(".pkl") and (info.file_size > _MOST_PIECE or info.compress_type):
            what = "is compressed" if info.compress_type else f"has {info.file_size} bytes"
            raise CorruptSource(f"{path}: {excerpt(info.filename)} {what}, unlike a pickle that PyTorch writes")
    return members


def _locate(
    name: str, tensor: PickledTensor, path: Path, members: dict[str, zipfile.ZipInfo], folder: str
) -> SourceTensor:
    dtype = tensor.storage.kind.dtype
    if dtype is None:
        raise UnsupportedModel(f"{path}: {name} is a {tensor.storage.kind.name}, not F32, F16 or BF16")
    start = _storage_offset(path, tensor.storage, dtype, members, folder)
    if tensor.last_element >= tensor.storage.elements:
        raise CorruptSource(f"{path}: {name} reaches past the end of its storage")
    offset = start + tensor.offset * dtype.itemsize
    if tensor.contiguous:
        return StoredTensor(name, tensor.shape, dtype, path, offset)
    return _StridedTensor(name, tensor, dtype, path, start)


def _storage_offset(
    path: Path, storage: Storage, dtype: DType, members: dict[str, zipfile.ZipInfo], folder: str
) -> int:
    """Where the bytes of a storage start in the file."""
    info = members.get(f"{folder}data/{storage.key}")
    if info is None:
        raise CorruptSource(f"{path}: the storage {excerpt(storage.key)} is missing")
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != storage.elements * dtype.itemsize:
        raise CorruptSource(f"{path}: the storage {excerpt(storage.key)} is compressed or has the wrong size")
    with open_regular(path) as file:
        file.seek(info.header_offset)
        head = file.read(_LOCAL_HEADER)
    if len(head) != _LOCAL_HEADER or head[:4] != b"PK\x03\x04":
        raise CorruptSource(f"{path}: the storage {excerpt(storage.key)} has no zip header")
    name_length, extra_length = struct.unpack_from("<HH", head, 26)
    start = info.header_offset + _LOCAL_HEADER + int(name_length) + int(extra_length)
    if start + info.file_size > path.stat().st_size:
        raise CorruptSource(f"{path}: the storage {excerpt(storage.key)} reaches past the end of the file")
    return start


class _StridedTensor:
    """A tensor whose rows are not stored in order, such as a transposed one."""

    def __init__(self, name: str, tensor: PickledTensor, dtype: DType, path: Path, start: int) -> None:
        self.name = name
        self.shape = tensor.shape
        self.dtype = dtype
        self.origin = path
        self._tensor = tensor
        self._start = start

    def read_rows(self, start: int, out: Rows) -> None:
        tensor, dtype = self._tensor, self.dtype.raw
        flat = np.memmap(self.origin, dtype, "r", self._start, (tensor.storage.elements,))
        strides = [step * dtype.itemsize for step in tensor.stride]
        rows = as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)
        out.reshape(-1, *tensor.shape[1:])[...] = rows[start : start + len(out)]

    def location(self, start: int) -> None:
        return None
