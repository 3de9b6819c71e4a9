"""Which tokens of which texts are computed when, over a context whose vectors tell any mistake."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_backend.account import LOCAL, Account
from llama_backend.engine.embedder import BESIDE_ANSWERS, Embedder, Part, Pooling, Vectors
from llama_backend.engine.placement.kv_plan import embedding_room
from llama_backend.errors import InternalError
from llama_backend.wire.ipc import Embedded


class FakeContext:
    """A token's vector is (token, position, tokens of the sequence so far), which shows cells that are wrong."""

    def __init__(self, room: int = 64, texts: int = 3, chunk: int = 40) -> None:
        self.room, self.texts, self.chunk = room, texts, chunk
        self.cells: dict[int, list[int]] = {}
        self.sizes: list[int] = []
        self.closed = False
        self.fails = False

    def compute(self, parts: list[Part]) -> list[Vectors]:
        if self.fails:
            raise InternalError("no")
        assert len({part.text.seq_id for part in parts}) == len(parts) <= self.texts
        self.sizes.append(sum(part.count for part in parts))
        assert 0 < self.sizes[-1] <= self.chunk
        return [self._rows(part) for part in parts]

    def _rows(self, part: Part) -> Vectors:
        cells = self.cells.setdefault(part.text.seq_id, [])
        assert len(cells) == part.text.done
        rows = [(token, len(cells) + index, part.text.seq_id >= 0) for index, token in enumerate(part.tokens)]
        cells += part.tokens
        assert sum(map(len, self.cells.values())) <= self.room
        return np.array(rows, np.float32)

    def clear(self, seq_id: int) -> None:
        self.cells.pop(seq_id, None)

    def close(self) -> None:
        self.closed = True


def run(embedder: Embedder, beside_answers: bool = False) -> list[Embedded]:
    found: list[Embedded] = []
    while embedder.busy:
        found += embedder.step(beside_answers)
    return found


def unit(*values: float) -> list[float]:
    return list(np.array(values) / np.linalg.norm(values))


def numbers(embedded: Embedded) -> list[float]:
    return list(struct.unpack(f"<{len(embedded.data) // 4}f", embedded.data))


@pytest.mark.parametrize(
    ("pooling", "vector"),
    [("mean", unit(60, 3, 3)), ("first", unit(10, 0, 1)), ("last", unit(30, 2, 1))],
)
def test_pooling(pooling: Pooling, vector: list[float]) -> None:
    embedder = Embedder(FakeContext, pooling)
    embedder.submit(7, [[10, 20, 30]], None, LOCAL)
    (found,) = run(embedder)
    assert (found.id, found.index, found.tokens) == (7, 0, 3)
    assert numbers(found) == pytest.approx(vector, abs=1e-6)


def test_dimensions_are_the_first_ones_of_a_unit_vector() -> None:
    embedder = Embedder(FakeContext, "last")
    embedder.submit(1, [[10, 20, 30]], 2, LOCAL)
    assert numbers(run(embedder)[0]) == pytest.approx(unit(30, 2), abs=1e-6)


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=64), min_size=1, max_size=12), st.booleans())
def test_a_text_has_the_same_vector_whatever_is_beside_it(texts: list[list[int]], beside: bool) -> None:
    context = FakeContext()
    embedder = Embedder(lambda: context, "mean")
    embedder.submit(1, texts, None, LOCAL)
    found = {each.index: each for each in run(embedder, beside)}
    assert sorted(found) == list(range(len(texts)))
    for index, tokens in enumerate(texts):
        expected = unit(sum(tokens), sum(range(len(tokens))), len(tokens))
        assert numbers(found[index]) == pytest.approx(expected, abs=1e-5)
    assert not context.cells
    if beside:
        assert max(context.sizes) <= BESIDE_ANSWERS


def test_a_request_that_is_cancelled_leaves_nothing() -> None:
    context = FakeContext()
    embedder = Embedder(lambda: context, "mean")
    embedder.submit(1, [[1] * 50, [2] * 50], None, LOCAL)
    embedder.submit(2, [[3] * 10], None, LOCAL)
    embedder.step(beside_answers=False)
    embedder.cancel(1)
    assert [found.id for found in run(embedder)] == [2]
    assert not context.cells


def test_what_cannot_be_computed_fails_all_and_nothing_is_left() -> None:
    context = FakeContext()
    embedder = Embedder(lambda: context, "mean")
    embedder.submit(1, [[1] * 60], None, LOCAL)
    embedder.submit(2, [[1] * 60], None, LOCAL)
    context.fails = True
    with pytest.raises(InternalError):
        embedder.step(beside_answers=False)
    assert embedder.cancel_all() == {1, 2}
    assert not embedder.busy
    context.fails = False
    embedder.submit(3, [[1]], None, LOCAL)
    assert len(run(embedder)) == 1


def test_a_long_request_does_not_hold_up_another_account() -> None:
    embedder = Embedder(FakeContext, "mean")
    embedder.submit(1, [[1] * 40] * 20, None, Account("a"))
    embedder.submit(2, [[1] * 5], None, Account("b"))
    order = [found.id for found in run(embedder)]
    assert order.index(2) <= 3


def test_the_context_is_there_only_while_it_is_needed() -> None:
    contexts: list[FakeContext] = []

    def opened() -> FakeContext:
        contexts.append(FakeContext())
        return contexts[-1]

    embedder = Embedder(opened, "mean")
    assert embedder.step(beside_answers=False) == []
    assert not contexts
    embedder.submit(1, [[1] * 60], None, LOCAL)
    embedder.step(beside_answers=False)
    embedder.close()
    assert [context.closed for context in contexts] == [False]
    run(embedder)
    embedder.close()
    assert [context.closed for context in contexts] == [True]
    embedder.submit(2, [[1]], None, LOCAL)
    assert len(run(embedder)) == 1
    assert len(contexts) == 2


@pytest.mark.parametrize(
    ("context", "bytes_per_token", "room"),
    [(4096, 23_040, 4096), (4096, 524_288, 512), (4096, 131_072, 2048), (256, 1 << 20, 256)],
)
def test_the_room_for_texts(context: int, bytes_per_token: int, room: int) -> None:
    assert embedding_room(context, bytes_per_token) == room
