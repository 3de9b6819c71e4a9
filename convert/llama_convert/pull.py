"""`pull`: a model from a hub, ready-made or converted here, checked and installed."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llama_convert.convert import ConvertOptions, Outcome, Product, convert
from llama_convert.errors import CorruptSource, DiskFull, DownloadFailed, UnsupportedModel
from llama_convert.files import check_free, explained, free_bytes, install, read_json, temporary_folder, write_json
from llama_convert.gguf.reader import read_gguf
from llama_convert.hub.catalogue import Target
from llama_convert.hub.client import HubClient
from llama_convert.hub.download import Advance, Downloader
from llama_convert.hub.listing import Listing, RemoteFile
from llama_convert.hub.select import GGUFChoice, choose_gguf, source_files
from llama_convert.llama_checkpoint import SourceOptions
from llama_convert.machine import core_count
from llama_convert.output.verify import check_model
from llama_convert.plan import Plan
from llama_convert.progress import Progress
from llama_convert.quant.file_types import DEFAULT, QUANTIZATIONS, parse_quantizations
from llama_convert.record import Provenance, read_record, write_record
from llama_convert.remote_plan import plan_download, plan_remote
from llama_convert.untrusted import MOST_TOKENIZER, excerpt, is_plain_name, read_regular

SOURCES = ".sources"
_MANIFEST = "manifest.json"
_MOST_SMALL = 200
_LICENSES = ("LICENSE", "USE_POLICY", "NOTICE")


@dataclass(frozen=True, slots=True)
class PullOptions:
    """Where to install, from where, and how a source is converted.

    `revision` is a branch, tag or commit; `endpoint` another hub, which gets the token only with `send_token`;
    `quantization` is the ready-made one to take; `keep_source` keeps weights that were fetched to convert them.
    """

    models: Path
    revision: str | None = None
    endpoint: str | None = None
    send_token: bool = False
    quantization: str | None = None
    keep_source: bool = False
    force: bool = False
    conversion: ConvertOptions | None = None
    downloader: Downloader | None = field(default=None, compare=False)


def plan_pull(target: Target, options: PullOptions) -> Plan:
    """What `pull` would fetch, write and need; only small files are fetched."""
    return _Pull(target, options, HubClient(options.endpoint, send_token=options.send_token)).plan()


def pull(target: Target, options: PullOptions, progress: Progress) -> Outcome:
    """Fetch `target` and install it in `options.models`.

    A GGUF repository is installed as it is; one with weights is converted. What an interrupted call has fetched is
    used again.

    Raises SourceError where there is no such model, it is closed to us, broken, or of a kind that we do not convert,
    DownloadFailed where the network or the hub fails again and again, and OutputExists, DiskFull, CheckFailed where as
    in `convert`.
    """
    hub = HubClient(options.endpoint, send_token=options.send_token)
    installed = _installed(target, options) if hub.offline else None
    return Outcome([installed], None) if installed else _Pull(target, options, hub).run(progress)


class _Pull:
    """One call of `pull`."""

    def __init__(self, target: Target, options: PullOptions, hub: HubClient) -> None:
        self._target = target
        self._options = options
        self._hub = hub
        self._listing = self._find()
        self._downloader = options.downloader or Downloader(self._hub.headers())

    def plan(self) -> Plan:
        choice = self._choice()
        free = free_bytes(self._options.models)
        if choice:
            return plan_download(self._listing, choice, free)
        small, weights = source_files(self._listing)
        with temporary_folder() as folder:
            self._fetch_small(small, folder)
            return plan_remote(folder, self._conversion(), weights, free)

    def run(self, progress: Progress) -> Outcome:
        if self._target.entry and self._target.entry.note:
            progress.warn(self._target.entry.note)
        choice = self._choice()
        if choice:
            return Outcome([self._install(choice, progress)], None)
        return self._convert(progress)

    def _choice(self) -> GGUFChoice | None:
        return choose_gguf(self._listing, self._target.quantization or self._options.quantization)

    def _find(self) -> Listing:
        """The repository's files; offline, those of the commit that was fetched last."""
        repository = self._target.repository
        if not self._hub.offline:
            return self._hub.listing(repository, self._options.revision)
        manifests = sorted(self._repository_folder().glob(f"*/{_MANIFEST}"), key=lambda path: path.stat().st_mtime)
        if not manifests:
            raise DownloadFailed(f"{repository}: HF_HUB_OFFLINE is set, and nothing of it was fetched before")
        return Listing.from_json(read_json(manifests[-1]))

    def _repository_folder(self) -> Path:
        return self._options.models / SOURCES / self._target.repository.replace("/", "--")

    def _source_folder(self) -> Path:
        return self._repository_folder() / self._listing.commit[:12]

    def _name(self, choice: GGUFChoice | None = None) -> str:
        """The name under which a model is installed: the short one, or the file's or the repository's own."""
        entry = self._target.entry
        if choice is None:
            return entry.name if entry else self._target.repository.rpartition("/")[2]
        if entry:
            return entry.name if choice.quantization == DEFAULT else f"{entry.name}-{choice.quantization}"
        name = Path(choice.files[0].path).stem.removesuffix(f"-00001-of-{len(choice.files):05d}")
        if not is_plain_name(name):
            raise UnsupportedModel(f"{self._target.repository}: {excerpt(name)} cannot be the name of a model")
        return name

    def _install(self, choice: GGUFChoice, progress: Progress) -> Product:
        """Fetch a ready-made model, check it, and give it its name."""
        targets = self._targets(choice)
        if self._is_installed(targets[0]):
            return Product(targets[0], choice.quantization, choice.nbytes, reused=True)
        for path in targets:
            check_free(path, force=self._options.force)
        staged = [self._source_folder() / path.name for path in targets]
        start = time.monotonic()
        hashes = self._fetch(list(zip(choice.files, staged, strict=True)), progress)
        seconds = time.monotonic() - start
        try:
            tokens = _check(staged[0], progress)
        except (CorruptSource, UnsupportedModel):
            shutil.rmtree(self._source_folder())
            raise
        with explained(self._options.models):
            self._keep_licenses(targets[0].stem)
            write_record(targets[0], self._record(choice, staged[0], hashes, tokens, seconds))
            for source, path in zip(reversed(staged), reversed(targets), strict=True):
                install(source, path)
            self._clean()
        return Product(targets[0], choice.quantization, choice.nbytes)

    def _targets(self, choice: GGUFChoice) -> list[Path]:
        name, count = self._name(choice), len(choice.files)
        if count == 1:
            return [self._options.models / f"{name}.gguf"]
        return [self._options.models / f"{name}-{index:05d}-of-{count:05d}.gguf" for index in range(1, count + 1)]

    def _is_installed(self, target: Path) -> bool:
        record = read_record(target) if target.is_file() else {}
        commit = (record.get("source") or {}).get("commit")
        return commit == self._listing.commit and not self._options.force

    def _convert(self, progress: Progress) -> Outcome:
        small, weights = source_files(self._listing)
        folder = self._source_folder()
        known = self._fetch_small(small, folder)
        plan = plan_remote(folder, self._conversion(), weights, free_bytes(self._options.models))
        present = sum(file.size for file in weights if _is_present(folder / file.path, file))
        if plan.disk_needed - present > plan.disk_free:
            need, free = (plan.disk_needed - present) / 1e9, plan.disk_free / 1e9
            raise DiskFull(f"{self._options.models}: {need:.2f} GB are needed and {free:.2f} GB are free")
        known |= self._fetch([(file, folder / file.path) for file in weights], progress)
        provenance = Provenance(self._listing.repository, self._listing.commit, self._listing.license, known)
        outcome = convert(folder, self._conversion(), progress, provenance)
        if not self._options.keep_source:
            self._clean()
        return outcome

    def _conversion(self) -> ConvertOptions:
        """The conversion's options, with the quantisation of `owner/repo:QUANT` and the short name."""
        given = self._options.conversion or ConvertOptions(self._options.models, [QUANTIZATIONS[DEFAULT]])
        if self._target.quantization:
            given = replace(given, quantizations=parse_quantizations(self._target.quantization))
        name = given.source.name or self._name()
        source: SourceOptions = replace(given.source, name=name)
        return replace(given, out=self._options.models, source=source, force=given.force or self._options.force)

    def _fetch_small(self, files: Sequence[RemoteFile], folder: Path) -> dict[str, str]:
        """Fetch configuration and tokenizer, and check them against the listing; their digests by file name."""
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
        found = {}
        for file in _small(self._listing, files):
            path = folder / file.path
            if not _is_present(path, file):
                self._transfer(file, path, lambda done: None)
            found[Path(file.path).name] = _verified(path, file)
        write_json(folder / _MANIFEST, self._listing.to_json())
        return found

    def _fetch(self, wanted: Sequence[tuple[RemoteFile, Path]], progress: Progress) -> dict[str, str]:
        """Fetch large files that are not there yet; their digests by file name."""
        self._check_space(wanted)
        progress.start("fetch", sum(file.size for file, _ in wanted))
        before, found = 0, {}
        for file, path in wanted:
            found[path.name] = self._fetch_one(file, path, before, progress)
            before += file.size
            progress.advance(before)
        progress.finish()
        return found

    def _fetch_one(self, file: RemoteFile, path: Path, before: int, progress: Progress) -> str:
        if _is_present(path, file) and file.sha256:
            return file.sha256
        cached = self._hub.cached(self._listing, file)
        if cached and file.sha256:
            with explained(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                if path.suffix == ".gguf":
                    shutil.copyfile(cached, path)
                else:
                    path.symlink_to(cached)
            return file.sha256
        return self._transfer(file, path, lambda done: progress.advance(before + done))

    def _transfer(self, file: RemoteFile, path: Path, advance: Advance) -> str:
        if self._hub.offline:
            raise DownloadFailed(f"{file.path}: HF_HUB_OFFLINE is set, and the file is not here")
        url = self._hub.url(self._listing, file.path)
        return self._downloader.fetch(self._listing.repository, url, file, path, advance)

    def _check_space(self, wanted: Sequence[tuple[RemoteFile, Path]]) -> None:
        missing = sum(file.size for file, path in wanted if not _is_present(path, file))
        free = free_bytes(self._options.models)
        if missing > free:
            need, have = missing / 1e9, free / 1e9
            raise DiskFull(f"{self._options.models}: {need:.2f} GB are needed and {have:.2f} GB are free")

    def _keep_licenses(self, name: str) -> None:
        wanted = [file for file in self._listing.files if file.path.startswith(_LICENSES) and "/" not in file.path]
        known = [] if self._hub.offline else _small(self._listing, wanted)
        for file in known:
            path = self._source_folder() / file.path
            self._transfer(file, path, lambda done: None)
            _verified(path, file)
            path.replace(self._options.models / f"{name}.{file.path}")

    def _record(
        self, choice: GGUFChoice, path: Path, hashes: dict[str, str], tokens: list[int], seconds: float
    ) -> dict[str, Any]:
        file = read_gguf(path)
        context = file.get("llama.context_length")
        entry = self._target.entry
        return {
            "name": self._name(choice),
            "size": choice.nbytes,
            "quantization": choice.quantization,
            "tensors": len(file.tensors),
            "context": context if type(context) is int else None,
            "license": (entry.license if entry else None) or self._listing.license or file.text("general.license"),
            "source": {
                "repository": self._listing.repository,
                "commit": self._listing.commit,
                "files": {
                    file.path: {"size": file.size, "sha256": digest}
                    for file, digest in zip(choice.files, hashes.values(), strict=True)
                },
            },
            "check": {"tokens": tokens},
            "seconds": {"fetch": round(seconds, 2)},
        }

    def _clean(self) -> None:
        shutil.rmtree(self._source_folder(), ignore_errors=True)
        for folder in (self._repository_folder(), self._options.models / SOURCES):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _installed(target: Target, options: PullOptions) -> Product | None:
    """The model of `target` that is installed already, for when nobody can be asked for a newer one."""
    wanted = (target.quantization or options.quantization or "").upper()
    for path in sorted(options.models.glob("*.gguf")):
        record = read_record(path)
        same = (record.get("source") or {}).get("repository") == target.repository
        if same and wanted in ("", record.get("quantization")):
            return Product(path, str(record.get("quantization")), path.stat().st_size, reused=True)
    return None


def _check(path: Path, progress: Progress) -> list[int]:
    architecture = read_gguf(path).text("general.architecture")
    if architecture is None:
        raise UnsupportedModel(f"{path}: names no architecture, so it is no model")
    return check_model(path, core_count(), full=False, progress=progress)


def _is_present(path: Path, file: RemoteFile) -> bool:
    """Whether the file is here; only whole ones have this name."""
    return path.is_file() and path.stat().st_size == file.size


def _small(listing: Listing, files: Sequence[RemoteFile]) -> Sequence[RemoteFile]:
    """The same files, which are as few and as small as configurations and tokenizers are.

    Raises UnsupportedModel where they are not.
    """
    for file in files:
        if file.size > MOST_TOKENIZER:
            raise UnsupportedModel(f"{listing.repository}: {file.path} has {file.size} bytes, which nobody could read")
    if len(files) > _MOST_SMALL:
        raise UnsupportedModel(f"{listing.repository}: has {len(files)} small files, which is no model")
    return files


def _verified(path: Path, file: RemoteFile) -> str:
    """The SHA-256 of a small file, after comparing it with what the hub lists.

    Raises CorruptSource where it is another file.
    """
    raw = read_regular(path, MOST_TOKENIZER)
    digest = hashlib.sha256(raw).hexdigest()
    blob = hashlib.sha1(b"blob %d\0" % len(raw) + raw, usedforsecurity=False).hexdigest()
    wanted, found = (file.sha256, digest) if file.sha256 else (file.blob_id, blob)
    if wanted and wanted != found:
        path.unlink()
        raise CorruptSource(f"{file.path}: is not the file that the hub lists ({found} instead of {wanted})")
    return digest
