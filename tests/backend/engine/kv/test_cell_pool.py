"""How many hold a cell, and when it is free."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llama_backend.engine.kv.cell_pool import CellPool


def test_cells_that_are_taken_are_used_until_they_are_given_back() -> None:
    pool = CellPool(10)
    first, second = pool.take(3), pool.take(4)
    assert (pool.size, pool.used, pool.free) == (10, 7, 3)
    pool.give_back(first)
    assert (pool.used, pool.free) == (4, 6)
    pool.give_back(second)
    assert (pool.used, pool.free) == (0, 10)


def test_a_shared_cell_counts_once_and_is_free_when_nobody_holds_it() -> None:
    pool = CellPool(10)
    cells = pool.take(4)
    pool.share(cells[:2])
    assert pool.used == 4
    pool.give_back(cells)
    assert pool.used == 2
    pool.give_back(cells[:2])
    assert pool.used == 0


@given(st.lists(st.integers(0, 5), max_size=20))
def test_no_number_is_given_to_two(counts: list[int]) -> None:
    pool = CellPool(100)
    cells = [cell for count in counts for cell in pool.take(count)]
    assert len(set(cells)) == len(cells) == sum(counts) == pool.used
