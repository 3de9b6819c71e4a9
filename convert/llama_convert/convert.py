"""A checkpoint in a folder becomes one or several checked GGUF files."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from llama_convert.checkpoint.meta_folder import read_checklist
from llama_convert.checkpoint.tensor import DType
from llama_convert.errors import DiskFull, UsageError, WorkerFailed
from llama_convert.files import check_free, explained, free_bytes, replacing, require_space, sha256_of
from llama_convert.gguf.reader import read_gguf
from llama_convert.gguf.writer import header
from llama_convert.llama_checkpoint import Checkpoint, SourceOptions, open_checkpoint
from llama_convert.machine import core_count
from llama_convert.output.sizes import unquantized_size
from llama_convert.output.verify import check_model, compare_tensors
from llama_convert.output.workspace import Workspace, open_workspace, workspace_folder
from llama_convert.output.write_model import Layout, plan_layout, write_model
from llama_convert.plan import Plan, make_plan
from llama_convert.progress import Progress
from llama_convert.quant.file_types import Quantization, split_quantizations
from llama_convert.quant.imatrix import read_imatrix
from llama_convert.record import (
    InputFile,
    Provenance,
    Record,
    RecordedCheck,
    RecordedSource,
    fingerprint,
    is_made_from,
    keep_licenses,
    report_path,
    write_record,
)
from llama_convert.report.quality import Report, make_report
from llama_convert.worker.child_process import run_worker
from llama_convert.worker.messages import Quantized, QuantizeTask

_FULL = 1 << 20
"""Free bytes below which a failure of llama.cpp is taken for a full disk: it gives no reason then."""


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """What the user wants to have made. `outtype` None keeps the type of the source.

    `keep_original` keeps the unquantised file too; without quantisations it is the only product. `verify` reads
    everything back and compares; `report` measures the quantised files on `report_text` (None: our own text).
    """

    out: Path
    quantizations: Sequence[Quantization] = ()
    source: SourceOptions = field(default_factory=SourceOptions)
    outtype: DType | None = None
    imatrix: Path | None = None
    keep_original: bool = False
    verify: bool = False
    report: bool = False
    report_text: str | None = None
    force: bool = False
    threads: int = 0

    @property
    def writes_unquantized(self) -> bool:
        """Whether the unquantised file is one of the products."""
        return self.keep_original or not self.quantizations

    def with_kinds(self, text: str) -> ConvertOptions:
        """The same, with the kinds to make from a list such as "Q4_K_M,Q8_0"; F16, BF16 and F32 are not quantised.

        Raises UsageError where a kind is not known.
        """
        quantizations, unquantized = split_quantizations(text)
        outtype = self.outtype or (DType[unquantized] if unquantized else None)
        keep = self.keep_original or unquantized is not None
        return replace(self, quantizations=quantizations, outtype=outtype, keep_original=keep)


@dataclass(frozen=True, slots=True)
class Product:
    """A finished model. `reused` says that an earlier run had made it from the same inputs."""

    path: Path
    kind: str
    nbytes: int
    reused: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a conversion made."""

    products: Sequence[Product]
    report: Report | None


def plan_conversion(folder: Path, options: ConvertOptions) -> Plan:
    """What converting `folder` would write and need; only headers are read."""
    checkpoint = open_checkpoint(folder, options.source)
    return _plan(checkpoint, plan_layout(checkpoint, options.outtype), options)


def convert(
    folder: Path,
    options: ConvertOptions,
    progress: Progress,
    provenance: Provenance | None = None,
    plan: Plan | None = None,
) -> Outcome:
    """Converts the checkpoint in `folder`; `plan` is the plan for it, if one was made already.

    A product appears under its name only when it is complete and checked. What an interrupted run has finished is used
    again if its inputs are unchanged.

    Raises SourceError where the source cannot be converted, OutputExists where a file is in the way and `force` is not
    set, DiskFull where the disk is too small or fills up, WorkerFailed where llama.cpp refuses, and CheckFailed where
    the result does not compute.
    """
    checkpoint = open_checkpoint(folder, options.source)
    for text in checkpoint.warnings:
        progress.warn(text)
    return _Conversion(checkpoint, options, progress, provenance or Provenance(), plan).run()


class _Conversion:
    """One run, whose steps share the checkpoint, the options and the times that they took."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        options: ConvertOptions,
        progress: Progress,
        provenance: Provenance,
        plan: Plan | None,
    ) -> None:
        self._checkpoint = checkpoint
        self._options = options
        self._progress = progress
        self._provenance = provenance
        self._plan = plan
        self._layout = plan_layout(checkpoint, options.outtype)
        self._threads = options.threads or core_count()
        self._fingerprint = self._source_fingerprint()
        self._seconds: dict[str, float] = {}

    def run(self) -> Outcome:
        wanted = [item.name for item in self._options.quantizations]
        if self._options.writes_unquantized:
            wanted.append(self._layout.dtype.name)
        done = {kind: self._target(kind) for kind in wanted if self._is_done(kind)}
        self._preflight([kind for kind in wanted if kind not in done])
        with explained(self._options.out):
            self._options.out.mkdir(parents=True, exist_ok=True)
        keep_licenses(self._checkpoint.folder, self._options.out, self._checkpoint.name)
        with open_workspace(self._options.out, self._checkpoint.name, self._fingerprint) as work:
            products = self._produce(wanted, done, work)
            report = self._report(products, work) if self._options.report else None
        return Outcome(products, report)

    def _produce(self, wanted: list[str], done: dict[str, Path], work: Workspace) -> list[Product]:
        """The products in the order asked for; the unquantised file comes last, since the others are made of it."""
        missing = len(done) < len(wanted)
        inputs = self._input_files() if missing else {}
        if missing or self._options.report:
            self._original(work)
        products = []
        for kind in wanted:
            target = self._target(kind)
            if kind not in done:
                self._make(kind, target, work, inputs)
            products.append(Product(target, kind, target.stat().st_size, reused=kind in done))
        return products

    def _original(self, work: Workspace) -> None:
        """Makes sure that the complete unquantised file is there, written now or by an earlier run."""
        if work.original.is_file():
            return
        with self._timed("write"), replacing(work.original) as part:
            write_model(self._checkpoint, self._layout, part, self._progress)
            if self._options.verify:
                compare_tensors(self._checkpoint, self._layout, part, self._progress)

    def _make(self, kind: str, target: Path, work: Workspace, inputs: dict[str, InputFile]) -> None:
        quantization = next((item for item in self._options.quantizations if item.name == kind), None)
        with replacing(target) as part:
            if quantization:
                self._quantize(quantization, work.original, part)
            else:
                _link(work.original, part)
            with self._timed("check"):
                tokens = check_model(part, self._threads, full=self._options.verify, progress=self._progress)
            write_record(target, self._record(kind, part, inputs, tokens))

    def _quantize(self, quantization: Quantization, source: Path, target: Path) -> None:
        imatrix = str(self._options.imatrix.resolve()) if self._options.imatrix else None
        task = QuantizeTask(str(source), str(target), quantization.file_type, self._threads, imatrix)
        try:
            with self._timed("quantize"):
                result = run_worker(f"quantise {quantization.name}", self._progress, task, Quantized)
        except WorkerFailed as error:
            if free_bytes(target.parent) < _FULL:
                raise DiskFull(f"{target}: the disk is full") from error
            raise
        for kind, count in result.fallbacks.items():
            total = len(self._layout.tensors)
            self._progress.warn(f"{count} of {total} tensors became {kind}, since their rows are not divisible by 256")

    def _report(self, products: list[Product], work: Workspace) -> Report:
        models = [(item.kind, item.path) for item in products if item.kind != self._layout.dtype.name]
        text = self._options.report_text
        target = report_path(self._options.out, self._checkpoint.name)
        with self._timed("report"):
            return make_report(work.original, models, text, target, self._threads, self._progress)

    def _preflight(self, kinds: list[str]) -> None:
        """Refuses what cannot succeed, before anything is written."""
        for kind in kinds:
            check_free(self._target(kind), force=self._options.force)
        for quantization in self._options.quantizations:
            if quantization.importance and self._options.imatrix is None:
                raise UsageError(f"{quantization.name} needs an importance matrix (--imatrix FILE)")
        self._check_imatrix()
        if kinds:
            self._check_disk(kinds)

    def _check_imatrix(self) -> None:
        if self._options.imatrix:
            shapes = {tensor.name: tensor.shape for tensor in self._layout.tensors}
            read_imatrix(self._options.imatrix, shapes)

    def _check_disk(self, kinds: list[str]) -> None:
        out, missing = self._options.out, [item for item in self._options.quantizations if item.name in kinds]
        plan = self._plan or _plan(self._checkpoint, self._layout, replace(self._options, quantizations=missing))
        earlier = Workspace(workspace_folder(out, self._checkpoint.name, self._fingerprint)).original
        needed = unquantized_size(self._layout) + plan.quantized_bytes([item.name for item in missing])
        require_space(out, needed - (earlier.stat().st_size if earlier.is_file() else 0), free_bytes(out))

    def _target(self, kind: str) -> Path:
        return self._options.out / f"{self._checkpoint.name}-{kind}.gguf"

    def _is_done(self, kind: str) -> bool:
        return not self._options.force and is_made_from(self._target(kind), self._fingerprint)

    def _source_fingerprint(self) -> str:
        """The fingerprint of the inputs and of everything in the header of the file."""
        imatrix = [self._options.imatrix] if self._options.imatrix and self._options.imatrix.is_file() else []
        return fingerprint([*self._checkpoint.files, *imatrix], header(self._layout.metadata, self._layout.tensors))

    def _input_files(self) -> dict[str, InputFile]:
        """Size and digest of every input; inputs that a download has hashed are not read again."""
        known = self._provenance.hashes
        unknown = [path for path in self._checkpoint.files if path.name not in known]
        found: dict[str, str] = {}
        if unknown:
            with self._timed("hash"):
                hashes = sha256_of(unknown, self._progress, read_checklist(self._checkpoint.folder))
            found = {path.name: digest for path, digest in hashes.items()}
        return {
            path.name: InputFile(path.stat().st_size, known.get(path.name) or found[path.name])
            for path in self._checkpoint.files
        }

    def _record(self, kind: str, path: Path, inputs: dict[str, InputFile], tokens: list[int]) -> Record:
        file = read_gguf(path)
        source = RecordedSource(
            folder=str(self._checkpoint.folder),
            repository=self._provenance.repository,
            commit=self._provenance.commit,
            files=inputs,
        )
        return Record(
            name=self._checkpoint.name,
            file=self._target(kind).name,
            size=path.stat().st_size,
            quantization=kind,
            tensors=len(file.tensors),
            context=self._checkpoint.config.context_length,
            license=self._provenance.license or file.text("general.license"),
            imatrix=self._options.imatrix.name if self._options.imatrix else None,
            source=source,
            check=RecordedCheck(tokens),
            warnings=list(self._checkpoint.warnings),
            seconds={name: round(seconds, 2) for name, seconds in self._seconds.items()},
            fingerprint=self._fingerprint,
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._seconds[stage] = time.monotonic() - start


def _link(source: Path, target: Path) -> None:
    """Gives the file another name; copies it where the file system has no hard links."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _plan(checkpoint: Checkpoint, layout: Layout, options: ConvertOptions) -> Plan:
    return make_plan(
        checkpoint.name,
        checkpoint.config,
        layout,
        list(options.quantizations),
        fetch_bytes=0,
        disk_free=free_bytes(options.out),
        keeps_original=options.writes_unquantized,
    )
