"""The client of a hub: what a repository holds, and where its files are.

Tokens and caches are found by the hub's own library, huggingface_hub.
"""

from __future__ import annotations

import os
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import msgspec

from llama_convert.errors import AccessDenied, ConvertError, CorruptSource, DownloadFailed, SourceNotFound
from llama_convert.hub.http import NetworkError, opened, read_body
from llama_convert.hub.listing import Listing, RemoteFile, checked
from llama_convert.untrusted import MOST_CONFIG, parse_object

_LISTING_SECONDS = 60.0
"""Seconds that fetching a list of files may take; the longest lists have a few MB."""
_LONGEST_LICENSE = 200
DEFAULT_ENDPOINT = "https://huggingface.co"


class HubClient:
    """A hub at `endpoint` (None: `HF_ENDPOINT`, or Hugging Face).

    The token of the environment (`HF_TOKEN`, or the one that `hf auth login` keeps) goes to Hugging Face itself; to
    another endpoint only where `send_token` says so.
    """

    def __init__(self, endpoint: str | None = None, *, send_token: bool = False) -> None:
        self.endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
        self._token: bool | None = None if send_token or self.endpoint == DEFAULT_ENDPOINT else False

    @property
    def offline(self) -> bool:
        """Whether `HF_HUB_OFFLINE` forbids using the network."""
        return bool(_library().constants.is_offline_mode())

    def listing(self, repository: str, revision: str | None) -> Listing:
        """The files of `repository` at `revision`, a branch, tag or commit.

        Raises AccessDenied where it is gated or private, SourceNotFound where there is no such repository or revision,
        and DownloadFailed where the hub cannot be reached.
        """
        address = f"{self.endpoint}/api/models/{repository}"
        if revision:
            address += f"/revision/{quote(revision, safe='')}"
        raw = self._ask(repository, f"{address}?blobs=true")
        try:
            found = msgspec.convert(parse_object(raw, Path(self.endpoint), MOST_CONFIG), _Answer)
        except (CorruptSource, ValueError) as error:
            raise DownloadFailed(f"{self.endpoint} does not answer with a list of files ({error})") from error
        card = found.card_data or {}
        license_name = card.get("license_name") or card.get("license")
        files = [_remote_file(sibling) for sibling in found.siblings]
        return checked(Listing(repository, found.sha, files, _plain(license_name)))

    def _ask(self, repository: str, address: str) -> bytes:
        try:
            with opened(address, self.headers()) as response:
                if response.status_code != HTTPStatus.OK:
                    raise _refused(repository, response)
                return read_body(response, MOST_CONFIG, _LISTING_SECONDS, time.monotonic)
        except NetworkError as error:
            raise DownloadFailed(f"{self.endpoint} cannot be reached: {error or type(error).__name__}") from error

    def cached(self, listing: Listing, file: RemoteFile) -> Path | None:
        """The file in the cache that huggingface_hub shares with other programs, if it is complete there."""
        found = _library().try_to_load_from_cache(listing.repository, file.path, revision=listing.commit)
        if not isinstance(found, str) or file.sha256 is None:
            return None
        blob = Path(found).resolve()
        return blob if blob.name == file.sha256 and blob.stat().st_size == file.size else None

    def url(self, listing: Listing, path: str) -> str:
        """The address of a file; the answer may be a redirect to another host."""
        address = _library().hf_hub_url(listing.repository, path, revision=listing.commit, endpoint=self.endpoint)
        return str(address)

    def headers(self) -> dict[str, str]:
        """The headers of a request, with the token if it may be sent."""
        return dict(_library().utils.build_hf_headers(token=self._token))


class _LargeFile(msgspec.Struct):
    sha256: str


class _Sibling(msgspec.Struct, rename="camel"):
    rfilename: str
    size: int | None = None
    blob_id: str | None = None
    lfs: _LargeFile | None = None


class _Answer(msgspec.Struct, rename="camel"):
    """What the hub says about a repository."""

    sha: str
    siblings: list[_Sibling]
    card_data: dict[str, Any] | None = None


def _plain(license_name: Any) -> str | None:
    """The name of a licence, if it is a short text."""
    return license_name if isinstance(license_name, str) and len(license_name) <= _LONGEST_LICENSE else None


def _refused(repository: str, response: httpx2.Response) -> ConvertError:
    """The error for an answer that is not a list of files; the hub gives the reason in a header."""
    match response.headers.get("x-error-code"):
        case "RevisionNotFound":
            return SourceNotFound(f"{repository}: there is no such revision")
        case "RepoNotFound":
            return SourceNotFound(f"{repository}: there is no such repository, or it is private")
    return answered(repository, response.status_code)


def answered(repository: str, status: int) -> ConvertError:
    """The error for an answer with this HTTP status."""
    if status in (401, 403):
        return _denied(repository, status)
    if status == 404:
        return SourceNotFound(f"{repository}: there is no such repository or file")
    if status == 429:
        return DownloadFailed(f"{repository}: the hub asks to slow down (HTTP 429); try again in a few minutes")
    return DownloadFailed(f"{repository}: the hub answers with HTTP status {status}")


def _denied(repository: str, status: int) -> AccessDenied:
    """The error for a repository that cannot be read: without a token, or with a token that has no access."""
    page = f"{DEFAULT_ENDPOINT}/{repository}"
    if status == 401:
        return AccessDenied(f"{repository} is gated: accept its licence at {page}, then set HF_TOKEN to your token")
    return AccessDenied(f"{repository} is gated, and your token has no access to it yet: ask for it at {page}")


def _remote_file(sibling: _Sibling) -> RemoteFile:
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    return RemoteFile(sibling.rfilename, sibling.size or 0, sha256, sibling.blob_id)


def _library() -> Any:
    """huggingface_hub, imported only when it is needed: the import takes a moment, and reads the environment.

    Its own transfer protocol for large files is switched off, since it ignores the endpoint that the user chose.
    """
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import huggingface_hub
    import huggingface_hub.constants
    import huggingface_hub.utils

    return huggingface_hub
