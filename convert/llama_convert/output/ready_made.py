"""Installs a model that a repository holds as GGUF already: its files are checked, recorded and moved into place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_convert.errors import UnsupportedModel
from llama_convert.files import install
from llama_convert.gguf.reader import read_gguf
from llama_convert.hub.fetch import Wanted
from llama_convert.hub.resolve import Repository
from llama_convert.hub.select import GGUFChoice
from llama_convert.machine import core_count
from llama_convert.output.verify import check_model
from llama_convert.progress import Progress
from llama_convert.record import InputFile, Record, RecordedCheck, RecordedSource, read_record


@dataclass(frozen=True, slots=True)
class ReadyMade:
    """A model of a repository, and the name under which it is installed in the folder `models`."""

    name: str
    choice: GGUFChoice
    repository: Repository
    models: Path

    @property
    def targets(self) -> list[Path]:
        """Where its files will be; a split model keeps its parts."""
        count = len(self.choice.files)
        if count == 1:
            return [self.models / f"{self.name}.gguf"]
        return [self.models / f"{self.name}-{index:05d}-of-{count:05d}.gguf" for index in range(1, count + 1)]

    @property
    def staged(self) -> list[Path]:
        """Where its files are collected until they are checked."""
        return [self.repository.folder / path.name for path in self.targets]

    @property
    def wanted(self) -> Wanted:
        """The files to fetch."""
        return list(zip(self.choice.files, self.staged, strict=True))

    def is_installed(self) -> bool:
        """Whether the model of this commit is installed."""
        target = self.targets[0]
        return target.is_file() and read_record(target).source.commit == self.repository.listing.commit

    def check(self, progress: Progress) -> list[int]:
        """Loads the fetched model and returns the tokens that it decodes.

        Raises UnsupportedModel, CorruptSource or CheckFailed where it is not a model that llama.cpp can use.
        """
        path = self.staged[0]
        if read_gguf(path).text("general.architecture") is None:
            raise UnsupportedModel(f"{path}: does not name an architecture, so it is not a model")
        return check_model(path, core_count(), full=False, progress=progress)

    def record(self, license: str | None, hashes: Mapping[str, str], tokens: list[int], seconds: float) -> Record:
        """The record of the fetched model; `hashes` are the SHA-256 of its files, by their names here."""
        file, listing = read_gguf(self.staged[0]), self.repository.listing
        context = file.get("llama.context_length")
        inputs = {remote.path: InputFile(remote.size, hashes[path.name]) for remote, path in self.wanted}
        return Record(
            name=self.name,
            file=self.targets[0].name,
            size=self.choice.nbytes,
            quantization=self.choice.quantization,
            tensors=len(file.tensors),
            context=context if type(context) is int else None,
            license=license or listing.license or file.text("general.license"),
            source=RecordedSource(repository=listing.repository, commit=listing.commit, files=inputs),
            check=RecordedCheck(tokens),
            seconds={"fetch": round(seconds, 2)},
        )

    def install(self) -> None:
        """Moves the files into place, the first part last: it is the one that is looked for."""
        for source, path in zip(reversed(self.staged), reversed(self.targets), strict=True):
            install(source, path)
