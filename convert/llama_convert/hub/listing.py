"""What a repository holds at one commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository. `sha256` is known for large files, `blob_id`, the git object's SHA-1, for the others."""

    path: str
    size: int
    sha256: str | None = None
    blob_id: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a repository at a commit, and the licence that it declares."""

    repository: str
    commit: str
    files: Sequence[RemoteFile]
    license: str | None = None

    def file(self, path: str) -> RemoteFile | None:
        return next((file for file in self.files if file.path == path), None)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Listing:
        files = [RemoteFile(**file) for file in value["files"]]
        return cls(value["repository"], value["commit"], files, value["license"])
