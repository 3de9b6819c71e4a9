"""What a repository holds at one commit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from llama_convert.errors import DownloadFailed
from llama_convert.untrusted import excerpt

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_FILES = 100_000
_MOST_BYTES = 1 << 50
_LONGEST_PATH = 1000


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
        """The listing that `to_json` gave.

        Raises DownloadFailed where it is not a listing, or an impossible one.
        """
        try:
            return checked(msgspec.convert({**value, "files": list(value["files"])}, cls))
        except (KeyError, TypeError, ValueError) as error:
            raise DownloadFailed(f"the description of what was fetched earlier is broken ({error})") from error


def checked(listing: Listing) -> Listing:
    """The same listing, once its commit, paths and digests are known to be safe as parts of paths on this machine.

    Raises DownloadFailed where a path leads out of its folder, or a commit, digest or size is invalid.
    """
    where = f"{listing.repository}: the hub lists"
    if not _COMMIT.fullmatch(listing.commit):
        raise DownloadFailed(f"{where} {excerpt(listing.commit)}, which is not a commit")
    if len(listing.files) > _MOST_FILES:
        raise DownloadFailed(f"{where} {len(listing.files)} files, which is too many")
    for file in listing.files:
        if not _is_path(file.path):
            raise DownloadFailed(f"{where} a file with the impossible path {excerpt(file.path)}")
        if not 0 <= file.size <= _MOST_BYTES or not _are_digests(file):
            raise DownloadFailed(f"{where} {excerpt(file.path)} with an impossible size or digest")
    return listing


def _is_path(path: str) -> bool:
    """Whether the path stays in its folder on every system."""
    plain = path.isprintable() and "\\" not in path and len(path) <= _LONGEST_PATH
    return plain and not set(path.split("/")) & {"", ".", ".."}


def _are_digests(file: RemoteFile) -> bool:
    sha256 = file.sha256 is None or _SHA256.fullmatch(file.sha256)
    return bool(sha256 and (file.blob_id is None or _COMMIT.fullmatch(file.blob_id)))
