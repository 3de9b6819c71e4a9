"""Jobs for the engine's thread, which other threads prepare and it takes between two steps."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from llama_backend.engine.sequence import EngineRequest
from llama_backend.wire.ipc import Cancel, ClearKVStates, Embed, Stop


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to one prompt, which differ by their ids and seeds."""

    id: int
    """The number of the request."""
    requests: list[EngineRequest]


@dataclass(frozen=True, slots=True)
class Texts:
    """A request for embeddings whose texts are known to fit."""

    command: Embed
    texts: list[list[int]]


Job = Answers | Texts | Cancel | ClearKVStates | Stop


class Inbox:
    """The jobs that wait for the engine's thread; any thread may add some."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self._ready = threading.Event()

    def put(self, job: Job) -> None:
        """Adds a job and wakes the engine."""
        self._jobs.append(job)
        self._ready.set()

    def take(self, wait: float | None) -> list[Job]:
        """All jobs so far. Where there is none, waits at most `wait` seconds for one, or without limit for None."""
        if wait != 0:
            self._ready.wait(wait)
        self._ready.clear()
        jobs = []
        while self._jobs:
            jobs.append(self._jobs.popleft())
        return jobs
