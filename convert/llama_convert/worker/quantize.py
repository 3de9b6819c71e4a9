"""Quantises a file, or asks llama.cpp what quantising it would give; both are read from its log."""

from __future__ import annotations

import re
from pathlib import Path

from llama_convert.errors import WorkerFailed
from llama_convert.gguf.reader import GGUFFile, read_gguf
from llama_convert.quant.imatrix import read_imatrix
from llama_convert.worker import llama
from llama_convert.worker.channel import Channel
from llama_convert.worker.messages import Quantized, QuantizeTask, Sized, SizeTask

_TENSOR = re.compile(r"\[ *\d+/ *\d+\] (\S+) +- \[")
_TARGET = re.compile(r"MiB \((\w+)\)|converting to (\w+) ")
_FALLBACK = re.compile(r"falling back to +(\w+)")
_FAILED = re.compile(r"failed to quantize: (.*)")


class QuantizeLog:
    """Follows llama.cpp's log: which tensor is being quantised, what it becomes, what went wrong."""

    def __init__(self, file: GGUFFile, channel: Channel) -> None:
        self.types: dict[str, str] = {}
        self.fallbacks: dict[str, int] = {}
        self.failure = ""
        self._sizes = {name: tensor.info.nbytes for name, tensor in file.tensors.items()}
        self._total = sum(self._sizes.values())
        self._done = 0
        self._current = ""
        self._line = ""
        self._channel = channel

    def receive(self, piece: str) -> None:
        """Takes the next piece of the log; a line comes in several."""
        for text in piece.splitlines(keepends=True):
            self._line += text
            self._follow()
            if text.endswith("\n"):
                self._end_line()

    def _follow(self) -> None:
        """Notices a tensor as soon as its line begins, before it is quantised."""
        found = _TENSOR.search(self._line)
        if found and found[1] != self._current and found[1] in self._sizes:
            self._done += self._sizes.get(self._current, 0)
            self._current = found[1]
            self._channel.progress(self._done, self._total)

    def _end_line(self) -> None:
        line, self._line = self._line, ""
        target, fallback, failed = _TARGET.search(line), _FALLBACK.search(line), _FAILED.search(line)
        if target and _TENSOR.search(line):
            self.types[self._current] = target[1] or target[2]
        if fallback:
            self.fallbacks[fallback[1]] = self.fallbacks.get(fallback[1], 0) + 1
        if failed:
            self.failure = failed[1].strip()


def run_quantize(task: QuantizeTask, channel: Channel) -> Quantized:
    """Quantises a file.

    Raises WorkerFailed where llama.cpp refuses; the message has its reason.
    """
    source, target = Path(task.source), Path(task.target)
    file = read_gguf(source)
    shapes = {name: tensor.info.shape for name, tensor in file.tensors.items()}
    importance = read_imatrix(Path(task.imatrix), shapes) if task.imatrix else None
    log = QuantizeLog(file, channel)
    keep = llama.listen(log.receive)
    good = llama.quantize(source, target, task.file_type, threads=task.threads, importance=importance)
    del keep
    return _outcome(good, log, source)


def run_size(task: SizeTask, channel: Channel) -> Sized:
    """What `run_quantize` would return for each of the file types; no weights are read."""
    source = Path(task.source)
    file = read_gguf(source)
    found = []
    for file_type in task.file_types:
        log = QuantizeLog(file, channel)
        keep = llama.listen(log.receive)
        good = llama.quantize(source, source.with_suffix(".out"), file_type, threads=1, dry_run=True)
        del keep
        found.append(_outcome(good, log, source))
    return Sized(found)


def _outcome(good: bool, log: QuantizeLog, source: Path) -> Quantized:
    if not good:
        raise WorkerFailed(f"llama.cpp cannot quantise {source.name}: {log.failure or 'no reason given'}")
    return Quantized(log.types, log.fallbacks)
