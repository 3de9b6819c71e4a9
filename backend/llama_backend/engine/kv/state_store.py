"""The store of KV states outside the slots: in RAM, and on disk across restarts.

A state belongs to its tokens, not to a conversation: any request of its scope that begins with the same tokens gets it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from collections.abc import Sequence as Tokens
from itertools import count
from pathlib import Path
from time import monotonic

from llama_backend.engine.kv.memory import Bytes
from llama_backend.engine.kv.state_files import DamagedState, StateFile, StateFolder, StoredAnswer
from llama_backend.engine.kv.stored_state import Match, Place, StoredState, packed
from llama_backend.host.kv_state_folder import clear_states
from llama_backend.wire.status import KVStoreStatus

_log = logging.getLogger("llama_backend.engine")
_WRITE_FAILURES = 3
"""After so many failures in a row nothing more is written."""
AnswersIn = Callable[[list[int], str], list[StoredAnswer]]
"""Returns the remembered answers of a scope that a conversation of some tokens contains."""


class StateStore:
    """All states, found by their tokens.

    The engine's thread puts and fetches states, the threads that prepare requests read states ahead, and a thread of
    the store writes the files. One lock protects all fields. Files are read and written without it; the file of a
    state that was given up meanwhile is removed.

    `ram` is the most bytes of states in RAM. Without a folder, no state outlives the process. `only_whole` says that a
    state can only be used as a whole, as with a model that has a single state for all tokens (Mamba).
    """

    def __init__(self, folder: StateFolder | None, ram: int, answers_in: AnswersIn, only_whole: bool = False) -> None:
        self._folder = folder
        self._ram = ram
        self._answers_in = answers_in
        self._only_whole = only_whole
        self._states: list[StoredState] = []
        self._ticks = count(1)
        self._changed = threading.Condition()
        self._closing = False
        self._failures = 0
        self._disk_used = 0
        self._hits = 0
        self._hit_tokens = 0
        self.version = 0
        """Changes whenever `status` changes."""
        self._writer: threading.Thread | None = None

    def open(self) -> list[StateFile]:
        """Finds the states of earlier processes and returns them; from now on new ones are written."""
        if self._folder is None:
            return []
        found = self._folder.scan()
        with self._changed:
            for file in found:
                state = StoredState(file.tokens, file.scope, Place.DISK, next(self._ticks), path=file.path)
                self._states.append(state)
            self._disk_used = self._folder.used
        self._writer = threading.Thread(target=self._work, name="state-store", daemon=True)
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
            return self._next_unwritten() is not None

    @property
    def status(self) -> KVStoreStatus:
        with self._changed:
            return KVStoreStatus(
                states=len(self._states),
                ram_bytes=self._ram_used,
                ram_limit=self._ram,
                disk_bytes=self._disk_used,
                disk_limit=self._folder.limit if self._folder else 0,
                folder=str(self._folder.root) if self._folder else None,
                hits=self._hits,
                hit_tokens=self._hit_tokens,
            )

    def find(self, tokens: Tokens[int], scope: str) -> Match | None:
        """The state of a scope that has the longest prefix of `tokens`."""
        wanted = packed(tokens)
        with self._changed:
            return self._best(wanted, [state for state in self._states if state.scope == scope])

    def covered(self, tokens: Tokens[int], scope: str, durable: bool = False) -> int:
        """How many of the first tokens a state has already; with `durable`, only states on disk count."""
        wanted = packed(tokens)
        with self._changed:
            own = [state for state in self._states if state.scope == scope]
            match = self._best(wanted, [state for state in own if not durable or state.is_durable])
        return match.length if match else 0

    def put(self, tokens: Tokens[int], scope: str, data: Bytes, durable: bool, in_slot: bool = False) -> None:
        """Keeps a state, on disk as well if `durable`, and gives up states that are its beginning.

        `in_slot` says that a slot keeps the cells, so that the data is not needed in RAM once it is on disk.
        """
        to_disk = Place.MOVING if in_slot else Place.QUEUED
        place = to_disk if durable and self.durable else Place.RAM
        new = StoredState(packed(tokens), scope, place, next(self._ticks), data)
        with self._changed:
            if place is Place.RAM and len(data) > self._ram:
                return
            for other in self._states:
                if other.path is None and other.is_beginning_of(new):
                    other.give_up()
            self._states.append(new)
            self._shrink_ram(new)
            self._notify()

    def wait_written(self, seconds: float) -> bool:
        """Returns when all states are written; False where that takes too long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._next_unwritten() is None, seconds)

    def fetch(self, state: StoredState) -> Bytes | None:
        """The data of a state, or None where its file is gone or damaged; then the state is dropped."""
        data = state.data
        if data is None and state.path is not None and self._folder is not None:
            try:
                data = self._folder.read(state.path)
            except (OSError, DamagedState) as error:
                _log.warning("a KV state is not used: %s", error)
        if data is None:
            self.discard(state)
        state.last_used = next(self._ticks)
        return data

    def prefetch(self, tokens: Tokens[int], scope: str, least: Callable[[], int]) -> None:
        """Reads the best state for `tokens` from disk, where it has `least` of them or more.

        `least` is called only where there is such a state, since finding it out may take long.
        """
        match = self.find(tokens, scope)
        if match is not None and match.state.data is None and match.length >= least():
            self._read_ahead(match.state)

    def used(self, match: Match) -> None:
        """Notes that a slot has loaded a state; the copy in RAM is freed if the slot has all of it."""
        state = match.state
        with self._changed:
            self._hits += 1
            self._hit_tokens += match.length
            if match.length == state.length and not state.is_unwritten:
                state.free_ram()
                self._drop_gone()
            self._notify()

    def discard(self, state: StoredState) -> None:
        """Drops a state and removes its file."""
        with self._changed:
            state.give_up()
            self._drop_gone()
            self._notify()
        if state.path is not None and self._folder is not None:
            self._folder.remove(state.path)

    def clear(self) -> None:
        """Drops all states, in RAM and on disk, also those of other models."""
        with self._changed:
            for state in self._states:
                state.give_up()
            self._drop_gone()
            if self._folder is not None:
                clear_states(self._folder.root)
                self._disk_used = 0
            self._notify()

    def close(self, seconds: float) -> None:
        """Writes the remaining states, for at most `seconds`."""
        end = monotonic() + seconds
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._writer is not None:
            self._writer.join(max(0.0, end - monotonic()))

    @property
    def _ram_used(self) -> int:
        return sum(len(state.data) for state in self._states if state.data is not None)

    def _best(self, wanted: bytes, states: list[StoredState]) -> Match | None:
        best = None
        for state in states:
            length = state.in_common(wanted)
            if self._only_whole and length < state.length:
                continue
            if length > (best.length if best else 0):
                best = Match(state, length)
        return best

    def _shrink_ram(self, newest: StoredState | None) -> None:
        """Frees RAM down to the limit: first that of states on disk, then that of the least recently used."""
        self._drop_gone()
        held = [state for state in self._states if state.data is not None and state is not newest]
        for state in sorted(held, key=lambda state: (state.path is None, state.last_used)):
            if self._ram_used <= self._ram:
                break
            state.free_ram()
        self._drop_gone()

    def _drop_gone(self) -> None:
        self._states = [state for state in self._states if state.place is not Place.GONE]

    def _notify(self) -> None:
        self.version += 1
        self._changed.notify_all()

    def _read_ahead(self, state: StoredState) -> None:
        """Reads a state from disk, for a slot that is about to need it."""
        data = self.fetch(state)
        if data is None or len(data) > self._ram:
            return
        with self._changed:
            state.was_read(data)
            self._shrink_ram(state)
            self._notify()

    def _work(self) -> None:
        """What the store's thread does: it reads the state that was used last into RAM, and then writes new ones.

        The next request is often for the conversation that was used last.
        """
        with self._changed:
            last = self._states[-1] if self._states else None
        if last is not None and last.data is None:
            self._read_ahead(last)
        self._write_all()

    def _write_all(self) -> None:
        """Writes states, the oldest first, until the store is closed and none is left."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._next_unwritten() is not None)
                state = self._next_unwritten()
                data = state.data if state is not None else None
            if state is None or data is None:
                return
            self._write(state, data)

    def _next_unwritten(self) -> StoredState | None:
        return next((state for state in self._states if state.is_unwritten), None)

    def _write(self, state: StoredState, data: Bytes) -> None:
        assert self._folder is not None
        path = None
        try:
            answers = self._answers_in(state.ids, state.scope)
            path = self._folder.write(state.tokens, state.scope, answers, data)
            self._failures = 0
        except OSError as error:
            self._failures += 1
            _log.warning("a KV state cannot be written: %s", error)
        for unneeded in self._note_written(state, path):
            self._folder.remove(unneeded)
        removed = self._folder.shrink()
        with self._changed:
            for other in self._states:
                if other.path in removed:
                    other.file_removed()
            self._drop_gone()
            self._disk_used = self._folder.used
            self._notify()

    def _note_written(self, state: StoredState, path: Path | None) -> list[Path]:
        """Notes that a state was written, or could not be; returns the files that are no longer needed."""
        with self._changed:
            if not state.is_unwritten:
                return [path] if path is not None else []
            state.written(path)
            if path is None:
                self._shrink_ram(None)
                return []
            superseded = [other for other in self._states if other is not state and other.is_beginning_of(state)]
            for other in superseded:
                other.give_up()
            self._shrink_ram(None)
            return [other.path for other in superseded if other.path not in (None, path)]
