"""Fetches the files of a repository, except those that are on the disk or in the cache of other programs already."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from llama_convert.errors import CorruptSource, DownloadFailed, UnsupportedModel
from llama_convert.files import explained
from llama_convert.hub.client import HubClient
from llama_convert.hub.download import Advance, Downloader
from llama_convert.hub.listing import Listing, RemoteFile
from llama_convert.progress import Progress
from llama_convert.untrusted import MOST_TOKENIZER, read_regular

_MOST_SMALL = 200
"""Small files of one repository; a model has about ten."""

Wanted = Sequence[tuple[RemoteFile, Path]]
"""Files, and the paths that they should get."""


def present_bytes(wanted: Wanted) -> int:
    """Bytes of the files that are here already."""
    return sum(file.size for file, path in wanted if _is_present(file, path))


class Fetcher:
    """Fetches files of the repository `listing`."""

    def __init__(self, hub: HubClient, listing: Listing, downloader: Downloader | None = None) -> None:
        self._hub = hub
        self._listing = listing
        self._downloader = downloader or Downloader(hub.headers())

    def fetch_small(self, files: Sequence[RemoteFile], folder: Path) -> dict[str, str]:
        """Fetches configurations, tokenizers or licences into `folder`; returns their SHA-256 by file name.

        Raises UnsupportedModel where they are larger or more than those of any model, and CorruptSource where one is
        not the file that the hub lists.
        """
        self._check_small(files)
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
        found = {}
        for file in files:
            path = folder / file.path
            if not _is_present(file, path):
                self._transfer(file, path, lambda done: None)
            found[Path(file.path).name] = _verified(file, path)
        return found

    def fetch_large(self, wanted: Wanted, progress: Progress) -> dict[str, str]:
        """Fetches weights that are not here yet; returns their SHA-256 by file name."""
        progress.start("fetch", sum(file.size for file, _ in wanted))
        before, found = 0, {}
        for file, path in wanted:
            found[path.name] = self._fetch_one(file, path, before, progress)
            before += file.size
            progress.advance(before)
        progress.finish()
        return found

    def _fetch_one(self, file: RemoteFile, path: Path, before: int, progress: Progress) -> str:
        if _is_present(file, path) and file.sha256:
            return file.sha256
        cached = self._hub.cached(self._listing, file)
        if cached and file.sha256:
            _take_from_cache(cached, path)
            return file.sha256
        return self._transfer(file, path, lambda done: progress.advance(before + done))

    def _transfer(self, file: RemoteFile, path: Path, advance: Advance) -> str:
        if self._hub.offline:
            raise DownloadFailed(f"{file.path}: HF_HUB_OFFLINE is set, and the file was not fetched before")
        url = self._hub.url(self._listing, file.path)
        return self._downloader.fetch(self._listing.repository, url, file, path, advance)

    def _check_small(self, files: Sequence[RemoteFile]) -> None:
        repository = self._listing.repository
        for file in files:
            if file.size > MOST_TOKENIZER:
                what = f"{file.path} has {file.size} bytes, but such a file may have at most {MOST_TOKENIZER}"
                raise UnsupportedModel(f"{repository}: {what}")
        if len(files) > _MOST_SMALL:
            raise UnsupportedModel(f"{repository}: has {len(files)} small files, but a model has at most {_MOST_SMALL}")


def _is_present(file: RemoteFile, path: Path) -> bool:
    """Whether the file is here; only complete files have this name."""
    return path.is_file() and path.stat().st_size == file.size


def _take_from_cache(cached: Path, path: Path) -> None:
    """Links a file of the cache; a model that will be installed is copied."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if path.suffix == ".gguf":
            shutil.copyfile(cached, path)
        else:
            path.symlink_to(cached)


def _verified(file: RemoteFile, path: Path) -> str:
    """The SHA-256 of a small file, after comparing it with what the hub lists.

    Raises CorruptSource where it is another file, which is removed.
    """
    raw = read_regular(path, MOST_TOKENIZER)
    digest = hashlib.sha256(raw).hexdigest()
    blob = hashlib.sha1(b"blob %d\0" % len(raw) + raw, usedforsecurity=False).hexdigest()
    wanted, found = (file.sha256, digest) if file.sha256 else (file.blob_id, blob)
    if wanted and wanted != found:
        path.unlink()
        raise CorruptSource(f"{file.path}: is not the file that the hub lists ({found} instead of {wanted})")
    return digest
