"""Embeddings of texts, computed in parts between the steps of answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from llama_backend.account import Account
from llama_backend.crash_notes import CrashNotes
from llama_backend.fair_queue import FairQueue
from llama_backend.wire.ipc import Embedded

BESIDE_ANSWERS = 32
"""Most tokens of one step while answers are streamed, which have to wait for it."""
Vectors = npt.NDArray[np.floating[Any]]
Pooling = Literal["mean", "first", "last"]
"""The vector of a text is the mean of its tokens' vectors, or the first or the last of them."""


@dataclass(slots=True, eq=False)
class Text:
    """One text to embed, and how much of it is done."""

    request: int
    index: int
    tokens: list[int]
    account: Account
    dimensions: int | None = None
    seq_id: int = -1
    done: int = 0
    """Tokens that have been computed."""
    pooled: Vectors | None = None
    """The sum of their vectors, or the first or the last one."""

    @property
    def pending(self) -> int:
        """Tokens that have yet to be computed."""
        return len(self.tokens) - self.done


@dataclass(slots=True)
class Part:
    """Consecutive tokens of a text."""

    text: Text
    count: int

    @property
    def tokens(self) -> list[int]:
        return self.text.tokens[self.text.done : self.text.done + self.count]


class Context(Protocol):
    """What the embedder needs of llama.cpp."""

    @property
    def room(self) -> int:
        """The most tokens of all texts together that are computed at the same time."""
        ...

    @property
    def texts(self) -> int:
        """The most texts that are computed at the same time; their sequence ids are the numbers below that."""
        ...

    @property
    def chunk(self) -> int:
        """The most tokens of one step."""
        ...

    def compute(self, parts: list[Part]) -> list[Vectors]:
        """For each part the vectors of its tokens. Raises InternalError."""
        ...

    def clear(self, seq_id: int) -> None:
        """Frees the cells of a text."""
        ...

    def close(self) -> None:
        """Frees the memory."""
        ...


class Embedder:
    """Texts that wait for their vectors. The context that computes them is opened when the first text comes."""

    def __init__(self, open_context: Callable[[], Context], pooling: Pooling, notes: CrashNotes | None = None) -> None:
        self._notes = notes or CrashNotes()
        self._open = open_context
        self._pooling = pooling
        self._context: Context | None = None
        self._queue = FairQueue[Text]()
        self._active: list[Text] = []

    @property
    def busy(self) -> bool:
        return bool(self._active or self._queue)

    def submit(self, number: int, texts: list[list[int]], dimensions: int | None, account: Account) -> None:
        """Queues the texts of a request, each of which fits the context."""
        for index, tokens in enumerate(texts):
            self._queue.add(Text(number, index, tokens, account, dimensions))

    def cancel(self, number: int) -> None:
        """Drops the texts of a request."""
        for text in [text for text in self._queue if text.request == number]:
            self._queue.remove(text)
        for text in [text for text in self._active if text.request == number]:
            self._end(text)

    def cancel_all(self) -> set[int]:
        """Drops all texts; returns the numbers of their requests."""
        numbers = {text.request for text in (*self._queue, *self._active)}
        for number in numbers:
            self.cancel(number)
        return numbers

    def step(self, beside_answers: bool) -> list[Embedded]:
        """Computes the next tokens, only a few beside answers; returns the vectors of texts that are complete.

        Raises BackendError.
        """
        if not self.busy:
            return []
        context = self._context = self._context or self._open()
        self._admit(context)
        parts = self._plan(min(context.chunk, BESIDE_ANSWERS) if beside_answers else context.chunk)
        self._notes.batch([part.text.request for part in parts])
        for part, rows in zip(parts, context.compute(parts), strict=True):
            self._pool(part.text, rows)
        complete = [part.text for part in parts if not part.text.pending]
        for text in complete:
            self._end(text)
        return [self._vector(text) for text in complete]

    def close(self) -> None:
        """Frees the context if no text needs it."""
        if self._context is not None and not self.busy:
            self._context.close()
            self._context = None

    def _admit(self, context: Context) -> None:
        free = set(range(context.texts)) - {text.seq_id for text in self._active}
        room = context.room - sum(len(text.tokens) for text in self._active)
        while free and (text := self._queue.next()) is not None and len(text.tokens) <= room:
            self._queue.take(text)
            self._queue.charge(text, len(text.tokens))
            room -= len(text.tokens)
            text.seq_id = free.pop()
            self._active.append(text)

    def _plan(self, most: int) -> list[Part]:
        parts: list[Part] = []
        for text in self._active:
            count = min(text.pending, most)
            if count:
                parts.append(Part(text, count))
                most -= count
        return parts

    def _pool(self, text: Text, rows: Vectors) -> None:
        text.done += len(rows)
        if self._pooling == "last":
            text.pooled = rows[-1].astype(np.float64)
        elif self._pooling == "first":
            text.pooled = rows[0].astype(np.float64) if text.pooled is None else text.pooled
        else:
            total = rows.sum(axis=0, dtype=np.float64)
            text.pooled = total if text.pooled is None else text.pooled + total

    @staticmethod
    def _vector(text: Text) -> Embedded:
        """The unit vector of a text. (A mean need not be computed, since it has the direction of the sum.)"""
        assert text.pooled is not None
        vector = text.pooled[: text.dimensions]
        unit = vector / max(float(np.linalg.norm(vector)), 1e-12)
        return Embedded(id=text.request, index=text.index, tokens=len(text.tokens), data=unit.astype("<f4").tobytes())

    def _end(self, text: Text) -> None:
        self._active.remove(text)
        self._queue.done(text)
        if self._context is not None:
            self._context.clear(text.seq_id)
