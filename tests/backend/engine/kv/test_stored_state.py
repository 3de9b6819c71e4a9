"""Where a state is, and what it has in common with a prompt."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_backend.engine.kv.slots import common_prefix
from llama_backend.engine.kv.stored_state import Place, StoredState, packed

FILE = Path("a.kvstate")
few_tokens = st.lists(st.integers(1, 2), max_size=12)


def state(place: Place, tokens: tuple[int, ...] = (1, 2, 3), scope: str = "") -> StoredState:
    """A state that is in a place, with what it has there."""
    data = None if place in (Place.DISK, Place.GONE) else b"data"
    path = FILE if place in (Place.DISK, Place.BOTH) else None
    return StoredState(packed(tokens), scope, place, 1, data, path)


def has(found: StoredState) -> tuple[Place, bool, bool]:
    """Where it is; whether it has data, and whether it has a file."""
    return found.place, found.data is not None, found.path is not None


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        (Place.QUEUED, FILE, (Place.BOTH, True, True)),
        (Place.MOVING, FILE, (Place.DISK, False, True)),
        (Place.QUEUED, None, (Place.RAM, True, False)),
        (Place.MOVING, None, (Place.RAM, True, False)),
    ],
)
def test_a_state_that_was_written_or_could_not_be(
    before: Place, path: Path | None, after: tuple[Place, bool, bool]
) -> None:
    found = state(before)
    unwritten = [found.is_unwritten]
    found.written(path)
    unwritten.append(found.is_unwritten)
    assert has(found) == after
    assert unwritten == [True, False]
    assert found.is_durable == (path is not None)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Place.RAM, (Place.GONE, False, False)),
        (Place.QUEUED, (Place.GONE, False, False)),
        (Place.MOVING, (Place.GONE, False, False)),
        (Place.BOTH, (Place.DISK, False, True)),
        (Place.DISK, (Place.DISK, False, True)),
    ],
)
def test_without_its_ram_a_state_is_on_disk_or_gone(before: Place, after: tuple[Place, bool, bool]) -> None:
    found = state(before)
    found.free_ram()
    assert has(found) == after


def test_without_its_file_a_state_is_in_ram_or_gone() -> None:
    both, disk = state(Place.BOTH), state(Place.DISK)
    both.file_removed()
    disk.file_removed()
    assert has(both) == (Place.RAM, True, False)
    assert has(disk) == (Place.GONE, False, False)


def test_a_state_that_was_given_up_stays_so_whatever_was_read_meanwhile() -> None:
    found = state(Place.DISK)
    found.was_read(b"data")
    assert has(found) == (Place.BOTH, True, True)
    given_up = state(Place.DISK)
    given_up.give_up()
    given_up.was_read(b"data")
    assert given_up.place is Place.GONE


def test_only_a_state_of_the_same_scope_is_the_beginning_of_another() -> None:
    longer = state(Place.RAM, (1, 2, 3, 4))
    assert state(Place.RAM).is_beginning_of(longer)
    assert not longer.is_beginning_of(state(Place.RAM))
    assert not state(Place.RAM, scope="alice").is_beginning_of(longer)
    assert not state(Place.RAM, (2, 3)).is_beginning_of(longer)


@given(few_tokens, few_tokens)
def test_what_is_in_common_is_counted_in_whole_tokens(tokens: list[int], wanted: list[int]) -> None:
    found = state(Place.RAM, tuple(tokens))
    assert found.ids == tokens
    assert found.length == len(tokens)
    assert found.in_common(packed(wanted)) == common_prefix(tokens, wanted)
