"""States of KV cells that no slot holds any more: in RAM, and on disk across restarts.

A state belongs to its tokens, not to a conversation: whoever of its scope sends the same beginning gets it.
"""

from __future__ import annotations

import logging
import threading
from array import array
from collections.abc import Callable
from collections.abc import Sequence as Tokens
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import monotonic

from llama_backend.engine.kv.memory import Bytes
from llama_backend.engine.kv.state_files import DamagedState, StateFile, StateFolder, StoredAnswer
from llama_backend.host.kv_state_folder import clear_states
from llama_backend.wire.status import KVStoreStatus

_log = logging.getLogger("llama_backend.engine")
_TOKEN_BYTES = 4
_WRITE_FAILURES = 3
"""After as many failures in a row nothing more is written."""
AnswersIn = Callable[[list[int], str], list[StoredAnswer]]
"""The remembered answers in a conversation of some tokens, among those of a scope."""


@dataclass(slots=True, eq=False)
class Entry:
    """One state. It has its data in RAM, or a file, or both."""

    tokens: bytes
    """Ids as int32."""
    scope: str
    """Who may use it."""
    data: Bytes | None = None
    path: Path | None = None
    pending: bool = False
    """It is to be written to disk."""
    spare: bool = False
    """A slot has the cells anyway, so that the data is not needed in RAM once it is on disk."""
    last_used: int = 0

    @property
    def length(self) -> int:
        return len(self.tokens) // _TOKEN_BYTES

    @property
    def ids(self) -> list[int]:
        return array("i", self.tokens).tolist()


@dataclass(frozen=True)
class Match:
    """An entry, and how many tokens of it are the beginning of what was looked for."""

    entry: Entry
    length: int


class KVStore:
    """All states by their tokens; safe for the engine's thread, the reader's and its own, which writes the files.

    `ram` is the most bytes of states in RAM; without a folder nothing outlives the process. `whole` says that a
    state can only be used as a whole, as where a model sums up all tokens in one.
    """

    def __init__(self, folder: StateFolder | None, ram: int, answers_in: AnswersIn, whole: bool = False) -> None:
        self._folder = folder
        self._ram = ram
        self._answers_in = answers_in
        self._whole = whole
        self._entries: list[Entry] = []
        self._ticks = count(1)
        self._changed = threading.Condition()
        self._closing = False
        self._failures = 0
        self._disk_used = 0
        self._hits = 0
        self._hit_tokens = 0
        self.version = 0
        """Changes with whatever `status` says."""
        self.held: Callable[[Tokens[int], str], int] = lambda tokens, scope: 0
        """How many tokens at the beginning the slots of a scope hold; set by the cache."""
        self._writer: threading.Thread | None = None

    def open(self) -> list[StateFile]:
        """Finds the states of earlier processes, and begins to write new ones."""
        if self._folder is None:
            return []
        found = self._folder.scan()
        with self._changed:
            for file in found:
                self._entries.append(Entry(file.tokens, file.scope, path=file.path, last_used=next(self._ticks)))
            self._disk_used = self._folder.used
        self._writer = threading.Thread(target=self._work, name="kv-store", daemon=True)
        self._writer.start()
        return found

    @property
    def durable(self) -> bool:
        """Whether states outlive the process."""
        return self._folder is not None and self._failures < _WRITE_FAILURES

    @property
    def is_writing(self) -> bool:
        """Whether a state is still to be written to disk."""
        with self._changed:
            return self._next_pending() is not None

    @property
    def status(self) -> KVStoreStatus:
        with self._changed:
            return KVStoreStatus(
                states=len(self._entries),
                ram_bytes=self._ram_used,
                ram_limit=self._ram,
                disk_bytes=self._disk_used,
                disk_limit=self._folder.limit if self._folder else 0,
                folder=str(self._folder.root) if self._folder else None,
                hits=self._hits,
                hit_tokens=self._hit_tokens,
            )

    def find(self, tokens: Tokens[int], scope: str) -> Match | None:
        """The state of a scope that has the longest beginning in common with `tokens`."""
        wanted = _packed(tokens)
        with self._changed:
            return self._best(wanted, [entry for entry in self._entries if entry.scope == scope])

    def covered(self, tokens: Tokens[int], scope: str, durable: bool = False) -> int:
        """How many tokens at the beginning need not be put again; with `durable`, for the next process."""
        wanted = _packed(tokens)
        with self._changed:
            own = [entry for entry in self._entries if entry.scope == scope]
            match = self._best(wanted, [entry for entry in own if not durable or entry.path or entry.pending])
        return match.length if match else 0

    def put(self, tokens: Tokens[int], scope: str, data: Bytes, durable: bool, spare: bool = False) -> None:
        """Keeps a state, on disk as well where `durable`; states that are the beginning of it are not needed then."""
        pending = durable and self.durable
        entry = Entry(_packed(tokens), scope, data, None, pending, spare, next(self._ticks))
        with self._changed:
            if not pending and len(data) > self._ram:
                return
            for other in [other for other in self._entries if other.path is None and _is_prefix(other, entry)]:
                other.pending = False
                self._entries.remove(other)
            self._entries.append(entry)
            self._shrink_ram(entry)
            self._notify()

    def wait_written(self, seconds: float) -> bool:
        """Returns when the disk has caught up; False where that takes too long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._next_pending() is None, seconds)

    def fetch(self, entry: Entry) -> Bytes | None:
        """The state itself, or None where its file is gone or damaged; such an entry is forgotten."""
        data = entry.data
        if data is None and entry.path is not None and self._folder is not None:
            try:
                data = self._folder.read(entry.path)
            except (OSError, DamagedState) as error:
                _log.warning("a KV state is not used: %s", error)
        if data is None:
            self.discard(entry)
        entry.last_used = next(self._ticks)
        return data

    def prefetch(self, tokens: Tokens[int], scope: str, least: int) -> None:
        """Reads the best state for `tokens` from disk, where it has `least` tokens more than the slots."""
        match = self.find(tokens, scope)
        if match is None or match.entry.data is not None or match.length < self.held(tokens, scope) + least:
            return
        self._read_ahead(match.entry)

    def used(self, match: Match) -> None:
        """Notes that a slot has a state now; the copy in RAM is not needed where the slot has all of it."""
        with self._changed:
            self._hits += 1
            self._hit_tokens += match.length
            entry = match.entry
            if match.length == entry.length and not entry.pending:
                entry.data = None
                if entry.path is None and entry in self._entries:
                    self._entries.remove(entry)
            self._notify()

    def discard(self, entry: Entry) -> None:
        """Forgets an entry and removes its file."""
        with self._changed:
            if entry in self._entries:
                self._entries.remove(entry)
            entry.pending = False
            self._notify()
        if entry.path is not None and self._folder is not None:
            self._folder.remove(entry.path)

    def clear(self) -> None:
        """Forgets all states, in RAM and on disk, also those of other models."""
        with self._changed:
            for entry in self._entries:
                entry.pending = False
            self._entries.clear()
            if self._folder is not None:
                clear_states(self._folder.root)
                self._disk_used = 0
            self._notify()

    def close(self, seconds: float) -> None:
        """Writes what is still to be written, for at most as long."""
        end = monotonic() + seconds
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._writer is not None:
            self._writer.join(max(0.0, end - monotonic()))

    @property
    def _ram_used(self) -> int:
        return sum(len(entry.data) for entry in self._entries if entry.data is not None)

    def _best(self, wanted: bytes, entries: list[Entry]) -> Match | None:
        best = None
        for entry in entries:
            length = _common(entry.tokens, wanted)
            if self._whole and length < entry.length:
                continue
            if length > (best.length if best else 0):
                best = Match(entry, length)
        return best

    def _shrink_ram(self, newest: Entry | None) -> None:
        """Lets go of data in RAM over the limit: first what is on disk anyway, then the least recently used."""
        held = [entry for entry in self._entries if entry.data is not None and entry is not newest]
        for entry in sorted(held, key=lambda entry: (entry.path is None, entry.last_used)):
            if self._ram_used <= self._ram:
                return
            entry.data, entry.pending = None, False
            if entry.path is None:
                self._entries.remove(entry)

    def _notify(self) -> None:
        self.version += 1
        self._changed.notify_all()

    def _read_ahead(self, entry: Entry) -> None:
        """Reads a state from disk, for a slot that is about to need it."""
        data = self.fetch(entry)
        if data is None or len(data) > self._ram:
            return
        with self._changed:
            entry.data = data
            self._shrink_ram(entry)
            self._notify()

    def _work(self) -> None:
        """The thread of the store: reads the conversation that was at work last, which mostly goes on, then writes."""
        with self._changed:
            last = self._entries[-1] if self._entries else None
        if last is not None and last.data is None:
            self._read_ahead(last)
        self._write_pending()

    def _write_pending(self) -> None:
        """Writes the oldest pending entry first, until the store is closed and none is left."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._next_pending() is not None)
                entry = self._next_pending()
            if entry is None or entry.data is None:
                return
            self._write(entry, entry.data)

    def _next_pending(self) -> Entry | None:
        return next((entry for entry in self._entries if entry.pending), None)

    def _write(self, entry: Entry, data: Bytes) -> None:
        assert self._folder is not None
        path = None
        try:
            answers = self._answers_in(entry.ids, entry.scope)
            path = self._folder.write(entry.tokens, entry.scope, answers, data)
            self._failures = 0
        except OSError as error:
            self._failures += 1
            _log.warning("a KV state cannot be written: %s", error)
        for unneeded in self._settle(entry, path):
            self._folder.remove(unneeded)
        removed = self._folder.shrink()
        with self._changed:
            for other in self._entries:
                other.path = None if other.path in removed else other.path
            self._forget_lost()
            self._disk_used = self._folder.used
            self._notify()

    def _settle(self, entry: Entry, path: Path | None) -> list[Path]:
        """Notes that an entry was written (or could not be); returns the files that are not needed any more."""
        with self._changed:
            if path is not None and not entry.pending:
                return [path]
            entry.path, entry.pending = path, False
            superseded = []
            if path is not None:
                superseded = [other for other in self._entries if other is not entry and _is_prefix(other, entry)]
                self._entries = [other for other in self._entries if other not in superseded]
                if entry.spare:
                    entry.data = None
            self._shrink_ram(None)
            return [other.path for other in superseded if other.path not in (None, path)]

    def _forget_lost(self) -> None:
        """Drops entries that have neither data nor a file."""
        self._entries = [entry for entry in self._entries if entry.data is not None or entry.path is not None]


def _packed(tokens: Tokens[int]) -> bytes:
    return array("i", tokens).tobytes()


def _is_prefix(entry: Entry, other: Entry) -> bool:
    return entry.scope == other.scope and other.tokens.startswith(entry.tokens)


def _common(a: bytes, b: bytes) -> int:
    """How many whole tokens two packed sequences have in common at their start."""
    low, high = 0, min(len(a), len(b)) // _TOKEN_BYTES
    if a[: high * _TOKEN_BYTES] == b[: high * _TOKEN_BYTES]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        start, end = low * _TOKEN_BYTES, middle * _TOKEN_BYTES
        if a[start:end] == b[start:end]:
            low = middle
        else:
            high = middle
    return low
