"""The hub through its own client library: listings, small files, addresses; its errors become ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from llama_convert.errors import AccessDenied, ConvertError, DownloadFailed, SourceNotFound
from llama_convert.hub.listing import Listing, RemoteFile

DEFAULT_ENDPOINT: Final = "https://huggingface.co"


class Hub:
    """A hub at `endpoint` (None: `HF_ENDPOINT`, or Hugging Face).

    The token of the environment (`HF_TOKEN`, or the one that `hf auth login` keeps) goes to Hugging Face itself; to
    another endpoint only where `send_token` says so.
    """

    def __init__(self, endpoint: str | None = None, *, send_token: bool = False) -> None:
        self.endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
        self._token: bool | None = None if send_token or self.endpoint == DEFAULT_ENDPOINT else False

    @property
    def offline(self) -> bool:
        """Whether `HF_HUB_OFFLINE` forbids to ask anyone."""
        return bool(_library().constants.is_offline_mode())

    def listing(self, repository: str, revision: str | None) -> Listing:
        """The files of `repository` at `revision`, a branch, tag or commit.

        Raises:
            AccessDenied: it is gated or private.
            SourceNotFound: there is no such repository or revision.
            DownloadFailed: the hub cannot be reached.
        """
        api = _library().HfApi(endpoint=self.endpoint, token=self._token)
        with translated(repository, self.endpoint):
            info = api.model_info(repository, revision=revision, files_metadata=True)
        files = [_remote_file(sibling) for sibling in info.siblings or []]
        card = info.card_data.to_dict() if info.card_data else {}
        license_name = card.get("license_name") or card.get("license")
        return Listing(repository, str(info.sha), files, str(license_name) if license_name else None)

    def fetch_small(self, listing: Listing, path: str, folder: Path) -> Path:
        """Fetch a small file into `folder`."""
        with translated(listing.repository, self.endpoint):
            found = _library().hf_hub_download(
                listing.repository,
                path,
                revision=listing.commit,
                local_dir=folder,
                endpoint=self.endpoint,
                token=self._token,
            )
        return Path(str(found))

    def cached(self, listing: Listing, file: RemoteFile) -> Path | None:
        """The file in the cache that is shared with other programs, where it is complete there."""
        found = _library().try_to_load_from_cache(listing.repository, file.path, revision=listing.commit)
        if not isinstance(found, str) or file.sha256 is None:
            return None
        blob = Path(found).resolve()
        return blob if blob.name == file.sha256 and blob.stat().st_size == file.size else None

    def url(self, listing: Listing, path: str) -> str:
        """Where a file can be fetched; the answer may be a redirect to another host."""
        address = _library().hf_hub_url(listing.repository, path, revision=listing.commit, endpoint=self.endpoint)
        return str(address)

    def headers(self) -> dict[str, str]:
        """The headers of a request, with the token where it may be sent."""
        return dict(_library().utils.build_hf_headers(token=self._token))


@contextmanager
def translated(repository: str, endpoint: str) -> Iterator[None]:
    """Turn the library's errors about `repository` into ours."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise denied(repository, error.response.status_code) from error
    except errors.RevisionNotFoundError as error:
        raise SourceNotFound(f"{repository}: has no such revision") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise SourceNotFound(f"{repository}: there is no such repository, or it is private") from error
    except errors.EntryNotFoundError as error:
        raise SourceNotFound(f"{repository}: a file is missing ({error})") from error
    except errors.OfflineModeIsEnabled as error:
        raise DownloadFailed(f"{repository}: HF_HUB_OFFLINE is set, and the files are not all here") from error
    except errors.HfHubHTTPError as error:
        raise answered(repository, error.response.status_code) from error
    except OSError as error:
        raise DownloadFailed(f"{endpoint} cannot be reached: {error}") from error
    except Exception as error:
        # The library lets the errors of its HTTP client through, whichever that is in its version.
        raise DownloadFailed(f"{endpoint}: {type(error).__name__}: {error}") from error


def answered(repository: str, status: int) -> ConvertError:
    """The error for an answer with this HTTP status."""
    if status in (401, 403):
        return denied(repository, status)
    if status == 404:
        return SourceNotFound(f"{repository}: there is no such repository or file")
    if status == 429:
        return DownloadFailed(f"{repository}: the hub asks to slow down (HTTP 429); try again in a few minutes")
    return DownloadFailed(f"{repository}: the hub answers with HTTP status {status}")


def denied(repository: str, status: int) -> AccessDenied:
    """The error for a repository that is closed to us: without a token, or with one that has no access."""
    page = f"{DEFAULT_ENDPOINT}/{repository}"
    if status == 401:
        return AccessDenied(f"{repository} is gated: accept its licence at {page}, then set HF_TOKEN to your token")
    return AccessDenied(f"{repository} is gated, and your token has no access to it yet: ask for it at {page}")


def _remote_file(sibling: Any) -> RemoteFile:
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    return RemoteFile(sibling.rfilename, int(sibling.size or 0), sha256, sibling.blob_id)


def _library() -> Any:
    """The client library, imported when it is needed: it takes a moment, and reads the environment then.

    Its own transfer protocol for large files is left out, since it ignores the endpoint that a person chose.
    """
    os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import huggingface_hub
    import huggingface_hub.constants
    import huggingface_hub.utils

    return huggingface_hub
