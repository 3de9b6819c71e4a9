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
from typing import Any, TypeVar

import msgspec

from llama_convert.errors import CorruptSource
from llama_convert.files import LICENSES, read_json, replacing, write_json
from llama_convert.untrusted import MOST_CONFIG, is_plain_name, read_regular

_FORMAT = 1
_FIRST_PART = re.compile(r"-00001-of-(\d{5})$")
REPORT_ENDINGS = (".json", ".png")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a folder came from; `hashes` are digests that are known already, by file name."""

    repository: str | None = None
    commit: str | None = None
    license: str | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)


class InputFile(msgspec.Struct, frozen=True):
    """A file that a model was made from; the digest is hexadecimal."""

    size: int
    sha256: str


class RecordedSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model came from: a folder that was converted, or a repository at a commit; `files` are by name."""

    folder: str | None = None
    repository: str | None = None
    commit: str | None = None
    files: dict[str, InputFile] = {}


class RecordedCheck(msgspec.Struct, frozen=True):
    """The tokens that the model decoded before it was installed."""

    tokens: list[int] = []


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is recorded about a model. All may be missing: the record may come from elsewhere.

    `size` is in bytes, `context` in tokens, `seconds` by stage. A conversion also records its warnings, the importance
    matrix, and the fingerprint of its inputs.
    """

    format: int | None = None
    created: str | None = None
    versions: dict[str, str] = {}
    name: str | None = None
    file: str | None = None
    size: int | None = None
    quantization: str | None = None
    tensors: int | None = None
    context: int | None = None
    license: str | None = None
    imatrix: str | None = None
    source: RecordedSource = RecordedSource()
    check: RecordedCheck = RecordedCheck()
    warnings: list[str] = []
    seconds: dict[str, float] = {}
    fingerprint: str | None = None

    def known(self) -> dict[str, Any]:
        """The record as plain values, without those that are not known."""
        return {} if self == Record() else _filled(msgspec.to_builtins(self))


def _filled(values: dict[str, Any]) -> dict[str, Any]:
    """The values, and those inside them, without None."""
    pairs = ((name, _filled(value) if isinstance(value, dict) else value) for name, value in values.items())
    return {name: value for name, value in pairs if value is not None}


S = TypeVar("S", bound=msgspec.Struct)


def record_path(model: Path) -> Path:
    """The record of a model's file."""
    return model.with_suffix(".json")


def report_path(folder: Path, name: str) -> Path:
    """The quality report of the conversion `name`, without an ending: there are files with each of REPORT_ENDINGS."""
    return folder / f"{name}-report"


def fingerprint(files: Sequence[Path], header: bytes) -> str:
    """A digest of what a result depends on: the inputs' names, sizes and times, the file's header, and our versions."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    raw = json.dumps([stats, versions()], sort_keys=True)
    return hashlib.sha256(raw.encode() + header).hexdigest()


def versions() -> dict[str, str]:
    """The versions of the programs that make a model."""
    names = ("llama-chat", "llama_cpp_python", "numpy")
    found = {name: importlib.metadata.version(name) for name in names}
    return found | {"python": platform.python_version()}


def read_record(model: Path) -> Record:
    """The record of `model`; an empty one where there is none that can be read.

    The record may have come with the model from elsewhere. A value of another type than the one we write is left out,
    and so is a name that would lead out of the folder.
    """
    try:
        found = _as_far_as_valid(Record, read_json(record_path(model)))
    except (CorruptSource, OSError):
        return Record()
    safe = found.name is None or is_plain_name(found.name)
    return found if safe else msgspec.structs.replace(found, name=None)


def _as_far_as_valid(kind: type[S], raw: dict[str, Any]) -> S:
    """A struct of the values of `raw` that have the right type."""
    values: dict[str, Any] = {}
    for item in msgspec.structs.fields(kind):
        value = raw.get(item.name)
        if item.type is RecordedSource and isinstance(value, dict):
            values[item.name] = _as_far_as_valid(RecordedSource, value)
            continue
        try:
            values[item.name] = msgspec.convert(value, item.type)
        except msgspec.ValidationError:
            continue
    return kind(**values)


def write_record(model: Path, record: Record) -> None:
    """Writes the record of `model`, with the time and our versions."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    made = msgspec.structs.replace(record, format=_FORMAT, created=now, versions=versions())
    write_json(record_path(model), msgspec.to_builtins(made))


def is_made_from(model: Path, wanted: str) -> bool:
    """Whether `model` exists and its record has the fingerprint `wanted`."""
    return model.is_file() and read_record(model).fingerprint == wanted


def files_of(model: Path) -> list[Path]:
    """The files that belong to an installed model: its parts where it is split, its record, licences and report.

    The licences and the report of a conversion belong to all its quantisations, so only the last one has them.
    """
    folder, split = model.parent, _FIRST_PART.search(model.stem)
    stem = model.stem[: split.start()] if split else model.stem
    parts = sorted(folder.glob(f"{glob.escape(stem)}-?????-of-{split[1]}.gguf")) if split else [model]
    name = read_record(model).name or stem
    others = set(folder.glob(f"{glob.escape(name)}-*.gguf")) - set(parts)
    owners = {stem, name} if not others else {stem}
    licenses = sorted({path for owner in owners for pattern in LICENSES for path in _matching(folder, owner, pattern)})
    reports = [] if others else [f"{report_path(folder, name)}{ending}" for ending in REPORT_ENDINGS]
    return [*parts, *(path for path in (record_path(model), *licenses, *map(Path, reports)) if path.exists())]


def _matching(folder: Path, owner: str, pattern: str) -> list[Path]:
    return list(folder.glob(f"{glob.escape(owner)}.{pattern}"))


def keep_licenses(folder: Path, target: Path, name: str) -> None:
    """Copies the licence files of `folder` to `target`, with the model's name in front."""
    for pattern in LICENSES:
        for path in sorted(path for path in folder.glob(pattern) if path.is_file()):
            text = read_regular(path, MOST_CONFIG)
            with replacing(target / f"{name}.{path.name}") as part:
                part.write_bytes(text)
