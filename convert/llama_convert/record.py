"""The record beside a model: what it was made from, with what, and what came out."""

from __future__ import annotations

import datetime
import glob
import hashlib
import importlib.metadata
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_convert.errors import CorruptSource
from llama_convert.files import read_json, replacing, write_json
from llama_convert.untrusted import MOST_CONFIG, is_plain_name, read_regular

_FORMAT = 1
_FIRST_PART = re.compile(r"-00001-of-(\d{5})$")
_KINDS: dict[str, type] = {
    **dict.fromkeys(("name", "file", "quantization", "license", "imatrix", "fingerprint", "created"), str),
    "source": dict,
}
"""What those values of a record are that are worked with."""
_LICENSES = ("LICENSE*", "USE_POLICY*", "NOTICE*")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a folder came from; `hashes` are digests that are known already, by file name."""

    repository: str | None = None
    commit: str | None = None
    license: str | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)


def record_path(model: Path) -> Path:
    """The record of a model's file."""
    return model.with_suffix(".json")


def fingerprint(files: Sequence[Path], header: bytes) -> str:
    """A digest of what a result depends on: the inputs' names, sizes and times, the file's header, our version."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    raw = json.dumps([stats, versions()], sort_keys=True)
    return hashlib.sha256(raw.encode() + header).hexdigest()


def versions() -> dict[str, str]:
    """The versions of what makes a model."""
    names = ("llama-chat", "llama_cpp_python", "numpy")
    found = {name: importlib.metadata.version(name) for name in names}
    return found | {"python": platform.python_version()}


def read_record(model: Path) -> dict[str, Any]:
    """The record of `model`; empty where it has none that can be read.

    It may have come with the model from elsewhere: what is not of the kind that we write is left out, and so is a name
    that would lead out of the folder.
    """
    try:
        found = read_json(record_path(model))
    except (CorruptSource, OSError):
        return {}
    found = {key: value for key, value in found.items() if isinstance(value, _KINDS.get(key, object))}
    if not is_plain_name(found.get("name", "")):
        found.pop("name", None)
    texts = {key: text for key, text in found.get("source", {}).items() if isinstance(text, str) or key == "files"}
    return found | ({"source": texts} if "source" in found else {})


def write_record(model: Path, content: Mapping[str, Any]) -> None:
    """Write the record of `model`."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    write_json(record_path(model), {"format": _FORMAT, "created": now, "versions": versions(), **content})


def is_made_from(model: Path, wanted: str) -> bool:
    """Whether `model` exists and its record has the fingerprint `wanted`."""
    return model.is_file() and read_record(model).get("fingerprint") == wanted


def files_of(model: Path) -> list[Path]:
    """The files that belong to an installed model: its parts where it is split, its record, and its licences.

    The licences of a conversion belong to all its quantisations, and go with the last of them.
    """
    folder, split = model.parent, _FIRST_PART.search(model.stem)
    stem = model.stem[: split.start()] if split else model.stem
    parts = sorted(folder.glob(f"{glob.escape(stem)}-?????-of-{split[1]}.gguf")) if split else [model]
    name = str(read_record(model).get("name") or stem)
    others = set(folder.glob(f"{glob.escape(name)}-*.gguf")) - set(parts)
    owners = {stem, name} if not others else {stem}
    licenses = sorted({path for owner in owners for pattern in _LICENSES for path in _matching(folder, owner, pattern)})
    return [*parts, *(path for path in (record_path(model), *licenses) if path.exists())]


def _matching(folder: Path, owner: str, pattern: str) -> list[Path]:
    return list(folder.glob(f"{glob.escape(owner)}.{pattern}"))


def keep_licenses(folder: Path, target: Path, name: str) -> None:
    """Copy the licence's files beside the weights, with the model's name in front."""
    for pattern in _LICENSES:
        for path in sorted(path for path in folder.glob(pattern) if path.is_file()):
            text = read_regular(path, MOST_CONFIG)
            with replacing(target / f"{name}.{path.name}") as part:
                part.write_bytes(text)
