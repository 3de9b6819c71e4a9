"""Finds the weights in a Hugging Face folder: one file or several, safetensors or PyTorch's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from llama_convert.checkpoint.safetensors import read_safetensors
from llama_convert.checkpoint.tensor import SourceTensor
from llama_convert.checkpoint.torch_file import read_torch_file
from llama_convert.errors import CorruptSource, SourceNotFound, only_adapter
from llama_convert.files import read_json
from llama_convert.untrusted import excerpt

_SHOWN = 8
Reader = Callable[[Path], Mapping[str, SourceTensor]]
_FAMILIES: tuple[tuple[str, str, Reader], ...] = (
    ("model.safetensors.index.json", "*.safetensors", read_safetensors),
    ("pytorch_model.bin.index.json", "pytorch_model*.bin", read_torch_file),
)


def weight_files(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """The files that hold the weights, and where an index says each tensor is (empty without an index).

    Raises SourceNotFound where there are no weights, or a file that the index names is missing, and UnsupportedModel
    where there is only an adapter.
    """
    for index_name, pattern, _ in _FAMILIES:
        index = folder / index_name
        if index.exists():
            weight_map = _weight_map(index)
            return _named(folder, index, weight_map), weight_map
        found = sorted(path for path in folder.glob(pattern) if not path.name.startswith("consolidated"))
        if found:
            return found, {}
    if (folder / "adapter_config.json").is_file():
        raise only_adapter(folder)
    raise SourceNotFound(f"{folder}: holds no *.safetensors, pytorch_model*.bin or consolidated.*.pth")


def _weight_map(index: Path) -> dict[str, str]:
    found = read_json(index).get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise CorruptSource(f"{index}: weight_map is {excerpt(found)}, but should give the file of each tensor")
    return found


def _named(folder: Path, index: Path, weight_map: dict[str, str]) -> list[Path]:
    names = sorted(set(weight_map.values()))
    if any(Path(name).name != name for name in names) or not names:
        raise CorruptSource(f"{index}: names no files, or files outside the folder")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        some = ", ".join(missing[:_SHOWN]) + ", …" * (len(missing) > _SHOWN)
        raise SourceNotFound(f"{folder}: {len(missing)} of {len(names)} weight files are missing: {some}")
    return [folder / name for name in names]


def read_hf_tensors(folder: Path) -> tuple[dict[str, SourceTensor], list[Path]]:
    """All tensors in `folder` by name, and the files they are in.

    Raises CorruptSource where two files hold the same tensor, or no file holds a tensor of the index.
    """
    files, weight_map = weight_files(folder)
    read: Reader = read_torch_file if files[0].suffix == ".bin" else read_safetensors
    tensors: dict[str, SourceTensor] = {}
    for path in files:
        for name, tensor in read(path).items():
            if name in tensors:
                raise CorruptSource(f"{path}: {name} is also in {tensors[name].origin.name}")
            tensors[name] = tensor
    lost = [name for name in weight_map if name not in tensors and not name.endswith("inv_freq")]
    if lost:
        raise CorruptSource(f"{folder / weight_map[lost[0]]}: does not hold {lost[0]}, although the index says so")
    return tensors, files
