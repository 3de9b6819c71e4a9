"""Quantises a file, or asks llama.cpp what the quantisation would be, and reads both out of its log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from llama_convert.errors import WorkerFailed
from llama_convert.gguf.reader import GGUFFile, read_gguf
from llama_convert.quant.imatrix import read_imatrix
from llama_convert.worker import llama
from llama_convert.worker.channel import Channel

_TENSOR = re.compile(r"\[ *\d+/ *\d+\] (\S+) +- \[")
_TARGET = re.compile(r"MiB \((\w+)\)|converting to (\w+) ")
_FALLBACK = re.compile(r"falling back to +(\w+)")
_FAILED = re.compile(r"failed to quantize: (.*)")


class QuantizeLog:
    """Follows llama.cpp's log: which tensor is at work, what it becomes, what went wrong."""

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
        """Take the next piece of the log; a line comes in several."""
        for text in piece.splitlines(keepends=True):
            self._line += text
            self._follow()
            if text.endswith("\n"):
                self._end_line()

    def _follow(self) -> None:
        """Notice a tensor as soon as its line begins: the work on it follows."""
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


def run_quantize(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Quantise `request["source"]` into `request["target"]`.

    The result names the type of each tensor that changed, and how many fell back to which type because their rows are
    not divisible by 256.
    """
    source, target = Path(request["source"]), Path(request["target"])
    file = read_gguf(source)
    shapes = {name: tensor.info.shape for name, tensor in file.tensors.items()}
    importance = read_imatrix(Path(request["imatrix"]), shapes) if request["imatrix"] else None
    log = QuantizeLog(file, channel)
    keep = llama.listen(log.receive)
    good = llama.quantize(source, target, request["file_type"], threads=request["threads"], importance=importance)
    del keep
    return _outcome(good, log, source)


def run_size(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """What `run_quantize` would tell of `request["source"]`, for each of `file_types`; no weights are read."""
    source = Path(request["source"])
    file = read_gguf(source)
    found = []
    for file_type in request["file_types"]:
        log = QuantizeLog(file, channel)
        keep = llama.listen(log.receive)
        good = llama.quantize(source, source.with_suffix(".out"), file_type, threads=1, dry_run=True)
        del keep
        found.append(_outcome(good, log, source))
    return {"sizes": found}


def _outcome(good: bool, log: QuantizeLog, source: Path) -> dict[str, Any]:
    if not good:
        raise WorkerFailed(f"llama.cpp cannot quantise {source.name}: {log.failure or 'no reason given'}")
    return {"types": log.types, "fallbacks": log.fallbacks}
