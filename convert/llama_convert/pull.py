"""`pull`: a model from a hub, ready-made or converted here.

The name is resolved to a repository, a plan says what will be fetched and written, the files are fetched, and the model
is installed or converted and recorded.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from llama_convert.convert import ConvertOptions, Outcome, Product, convert
from llama_convert.errors import CorruptSource, UnsupportedModel, UsageError
from llama_convert.files import check_free, explained, free_bytes, require_space, temporary_folder
from llama_convert.hub.catalogue import Target
from llama_convert.hub.client import HubClient
from llama_convert.hub.download import Downloader
from llama_convert.hub.fetch import Fetcher, present_bytes
from llama_convert.hub.resolve import Repository, resolve
from llama_convert.hub.select import GGUFChoice, choose_gguf, license_files, source_files
from llama_convert.output.ready_made import ReadyMade
from llama_convert.plan import Plan
from llama_convert.progress import Progress
from llama_convert.quant.file_types import DEFAULT
from llama_convert.record import Provenance, read_record, write_record
from llama_convert.remote_plan import plan_download, plan_remote
from llama_convert.untrusted import excerpt, is_plain_name


@dataclass(frozen=True, slots=True)
class PullOptions:
    """Where a model comes from, and how it is installed or converted.

    `conversion` has the folder to install in, whether files there are replaced, and how weights are converted, except
    for the quantisations. `revision` is a branch, tag or commit; `endpoint` is another hub, which gets the token only
    with `send_token`; `keep_source` keeps weights that were fetched to convert them. `quant` means the same as the
    quantisation behind the colon of a name: the ready-made model to take, or the kinds that a conversion makes,
    separated by commas.
    """

    conversion: ConvertOptions
    revision: str | None = None
    endpoint: str | None = None
    send_token: bool = False
    quant: str | None = None
    keep_source: bool = False
    downloader: Downloader | None = field(default=None, compare=False)

    @property
    def models(self) -> Path:
        """The folder to install in."""
        return self.conversion.out


def plan_pull(target: Target, options: PullOptions) -> Plan:
    """What `pull` would fetch, write and need; only small files are fetched."""
    job = _resolved(target, options, _hub(options))
    choice = job.choice()
    if choice:
        return plan_download(job.repository.listing, choice, free_bytes(options.models))
    conversion = job.conversion()
    small, weights = source_files(job.repository.listing)
    with temporary_folder() as folder:
        job.fetcher.fetch_small(small, folder)
        return plan_remote(folder, conversion, weights, free_bytes(options.models))


def pull(target: Target, options: PullOptions, progress: Progress) -> Outcome:
    """Fetches `target` and installs it in `options.models`.

    A GGUF repository is installed as it is; one with weights is converted. What an interrupted call has fetched is
    used again.

    Raises UsageError where the quantisation makes no sense, SourceError where there is no such model, or it is gated,
    broken, or of a kind that cannot be converted, DownloadFailed where the network or the hub fails again and again,
    and OutputExists, DiskFull and CheckFailed as `convert` does.
    """
    hub = _hub(options)
    installed = _installed(target, options) if hub.offline else None
    if installed:
        return Outcome([installed], None)
    job = _resolved(target, options, hub)
    if target.entry and target.entry.note:
        progress.warn(target.entry.note)
    choice = job.choice()
    return Outcome([_install(job, choice, progress)], None) if choice else _convert(job, progress)


@dataclass(frozen=True, slots=True)
class _Job:
    """A call of `pull` whose name is resolved."""

    target: Target
    options: PullOptions
    quantization: str | None
    repository: Repository
    hub: HubClient
    fetcher: Fetcher

    def choice(self) -> GGUFChoice | None:
        """The ready-made model to install; None where the repository has to be converted."""
        return choose_gguf(self.repository.listing, self.quantization)

    def name(self, choice: GGUFChoice | None = None) -> str:
        """The name under which a model is installed: the short one, or that of the file or the repository."""
        entry, repository = self.target.entry, self.target.repository
        if choice is None:
            return entry.name if entry else repository.rpartition("/")[2]
        if entry:
            return entry.name if choice.quantization == DEFAULT else f"{entry.name}-{choice.quantization}"
        name = Path(choice.files[0].path).stem.removesuffix(f"-00001-of-{len(choice.files):05d}")
        if not is_plain_name(name):
            raise UnsupportedModel(f"{repository}: {excerpt(name)} cannot be the name of a model")
        return name

    def conversion(self) -> ConvertOptions:
        """The options of the conversion, with the quantisations that were asked for and the short name."""
        given = self.options.conversion.with_kinds(self.quantization or DEFAULT)
        return replace(given, source=replace(given.source, name=given.source.name or self.name()))


def _hub(options: PullOptions) -> HubClient:
    return HubClient(options.endpoint, send_token=options.send_token)


def _resolved(target: Target, options: PullOptions, hub: HubClient) -> _Job:
    quantization = _quantization(target, options)
    repository = resolve(target.repository, options.revision, options.models, hub)
    return _Job(target, options, quantization, repository, hub, Fetcher(hub, repository.listing, options.downloader))


def _quantization(target: Target, options: PullOptions) -> str | None:
    """The quantisation of the name or of the option, which mean the same.

    Raises UsageError where both are given and differ.
    """
    named, option = target.quantization, options.quant
    if named and option and named.upper() != option.strip().upper():
        raise UsageError(f"{target.repository}:{named} and --quant {option} differ; give only one of them")
    return named or option


def _installed(target: Target, options: PullOptions) -> Product | None:
    """The model of `target` that is installed already, for use when the hub cannot be asked for a newer one."""
    wanted = (_quantization(target, options) or "").upper()
    for path in sorted(options.models.glob("*.gguf")):
        record = read_record(path)
        if record.source.repository == target.repository and wanted in ("", record.quantization):
            return Product(path, str(record.quantization), path.stat().st_size, reused=True)
    return None


def _install(job: _Job, choice: GGUFChoice, progress: Progress) -> Product:
    """Fetches a ready-made model, checks it, and installs it."""
    models, force = job.options.models, job.options.conversion.force
    model = ReadyMade(job.name(choice), choice, job.repository, models)
    target = model.targets[0]
    if model.is_installed() and not force:
        return Product(target, choice.quantization, choice.nbytes, reused=True)
    for path in model.targets:
        check_free(path, force=force)
    plan = plan_download(job.repository.listing, choice, free_bytes(models))
    require_space(models, plan.disk_needed - present_bytes(model.wanted), plan.disk_free)
    start = time.monotonic()
    hashes = job.fetcher.fetch_large(model.wanted, progress)
    seconds = time.monotonic() - start
    try:
        tokens = model.check(progress)
    except (CorruptSource, UnsupportedModel):
        job.repository.remove()
        raise
    with explained(models):
        _keep_licenses(job, target.stem)
        license = job.target.entry.license if job.target.entry else None
        write_record(target, model.record(license, hashes, tokens, seconds))
        model.install()
        job.repository.remove()
    return Product(target, choice.quantization, choice.nbytes)


def _keep_licenses(job: _Job, name: str) -> None:
    """Fetches the licence files and puts them beside the model, with its name in front."""
    if job.hub.offline:
        return
    folder, wanted = job.repository.folder, license_files(job.repository.listing)
    job.fetcher.fetch_small(wanted, folder)
    for file in wanted:
        (folder / file.path).replace(job.options.models / f"{name}.{file.path}")


def _convert(job: _Job, progress: Progress) -> Outcome:
    """Fetches the weights of a repository and converts them."""
    conversion, models = job.conversion(), job.options.models
    listing, folder = job.repository.listing, job.repository.folder
    small, weights = source_files(listing)
    hashes = job.fetcher.fetch_small(small, folder)
    job.repository.remember()
    plan = plan_remote(folder, conversion, weights, free_bytes(models))
    wanted = [(file, folder / file.path) for file in weights]
    require_space(models, plan.disk_needed - present_bytes(wanted), plan.disk_free)
    hashes |= job.fetcher.fetch_large(wanted, progress)
    provenance = Provenance(listing.repository, listing.commit, listing.license, hashes)
    outcome = convert(folder, conversion, progress, provenance, plan)
    if not job.options.keep_source:
        job.repository.remove()
    return outcome
