"""From the name of a repository to its files at one commit, and to the folder in which they are collected here."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from llama_convert.errors import DownloadFailed
from llama_convert.files import read_json, write_json
from llama_convert.hub.client import HubClient
from llama_convert.hub.listing import Listing

_SOURCES = ".sources"
"""The folder among the models in which fetched files are collected."""
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit; `folder` collects what is fetched of it until it is installed or converted."""

    listing: Listing
    folder: Path

    def remember(self) -> None:
        """Notes what the repository holds, for a later call without the network."""
        write_json(self.folder / _MANIFEST, self.listing.to_json())

    def remove(self) -> None:
        """Removes what was fetched, and the folders above it that are empty then."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for folder in (self.folder.parent, self.folder.parent.parent):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def resolve(name: str, revision: str | None, models: Path, hub: HubClient) -> Repository:
    """The repository `name` at a branch, tag or commit; offline, at the commit of which files were fetched last.

    Raises AccessDenied, SourceNotFound or DownloadFailed where the hub does not list its files.
    """
    folder = models / _SOURCES / name.replace("/", "--")
    listing = _remembered(name, folder) if hub.offline else hub.listing(name, revision)
    return Repository(listing, folder / listing.commit[:12])


def _remembered(name: str, folder: Path) -> Listing:
    manifests = sorted(folder.glob(f"*/{_MANIFEST}"), key=lambda path: path.stat().st_mtime)
    if not manifests:
        raise DownloadFailed(f"{name}: HF_HUB_OFFLINE is set, and none of its files was fetched before")
    return Listing.from_json(read_json(manifests[-1]))
