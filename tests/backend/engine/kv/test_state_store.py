"""Which state a prompt finds, and which go where there is no room."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_backend.engine.kv.state_files import StateFolder, StoredAnswer
from llama_backend.engine.kv.state_store import StateStore
from llama_backend.engine.kv.stored_state import Match

STAMP = "0" * 32
A, B = list(range(100)), list(range(1000, 1100))


def make(folder: Path | None = None, ram: int = 1000, disk: int = 1 << 20, whole: bool = False) -> StateStore:
    files = StateFolder(folder, STAMP, disk) if folder else None
    return StateStore(files, ram, lambda tokens, scope: [StoredAnswer(tokens[-3:], False)], whole)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    store = make(tmp_path)
    store.open()
    yield store
    store.close(5)


def data_of(store: StateStore, tokens: list[int]) -> bytes | None:
    match = store.find(tokens, "")
    data = store.fetch(match.state) if match else None
    return bytes(data) if data is not None else None


def length(match: Match | None) -> int:
    return match.length if match else 0


def test_the_longest_common_beginning_is_found() -> None:
    store = make()
    store.put([*A, 5], "", b"a", durable=False)
    store.put([*A[:50], *B], "", b"b", durable=False)
    assert length(store.find([*A, 6, 7], "")) == 100
    assert data_of(store, [*A, 6, 7]) == b"a"
    assert length(store.find([*A[:50], 1000, 3], "")) == 51
    assert store.find([7, 7], "") is None


def test_a_state_that_can_only_be_used_whole_is() -> None:
    store = make(whole=True)
    store.put(A, "", b"a", durable=False)
    assert store.find(A[:99], "") is None
    assert length(store.find([*A, 1], "")) == 100


def test_a_state_replaces_those_that_are_its_beginning() -> None:
    store = make()
    store.put(A[:50], "", b"a", durable=False)
    store.put(A, "", b"b", durable=False)
    assert store.status.states == 1
    assert data_of(store, A[:60]) == b"b"


def test_the_least_recently_used_leave_the_ram() -> None:
    store = make(ram=250)
    for number in range(3):
        store.put([number] * 10, "", bytes(100), durable=False)
        if number == 1:
            data_of(store, [0] * 10)
    assert [length(store.find([number] * 10, "")) for number in range(3)] == [10, 0, 10]
    assert store.status.ram_bytes == 200


def test_what_does_not_fit_the_ram_is_not_kept() -> None:
    store = make(ram=10)
    store.put(A, "", bytes(11), durable=False)
    assert store.status.states == 0


def test_a_state_that_a_slot_has_taken_over_leaves_the_ram() -> None:
    store = make()
    store.put(A, "", b"a", durable=False)
    match = store.find([*A, 1], "")
    assert match is not None
    store.used(match)
    assert (store.status.states, store.status.hits, store.status.hit_tokens) == (0, 1, 100)


def test_a_state_that_gives_way_while_a_slot_takes_it_over_does_no_harm() -> None:
    """Another thread may read a state ahead meanwhile, for which the RAM is needed."""
    store = make(ram=1)
    store.put(A, "", b"a", durable=False)
    match = store.find([*A, 1], "")
    assert match is not None
    assert store.fetch(match.state) == b"a"
    store.put(B, "", b"b", durable=False)
    store.used(match)
    assert (store.find(A, ""), length(store.find(B, ""))) == (None, 100)


def test_a_state_of_which_a_part_was_used_stays() -> None:
    store = make()
    store.put(A, "", b"a", durable=False)
    match = store.find(A[:50], "")
    assert match is not None
    store.used(match)
    assert data_of(store, A) == b"a"


def test_states_outlive_the_process(store: StateStore, tmp_path: Path) -> None:
    store.put(A, "", b"a", durable=True)
    store.put(B, "", b"b", durable=False)
    store.close(5)
    other = make(tmp_path)
    (file,) = other.open()
    assert file.answers == [StoredAnswer(A[-3:], False)]
    assert data_of(other, [*A, 1]) == b"a"
    assert other.find(B, "") is None
    assert other.status.disk_bytes > 0
    other.close(5)


def test_the_conversation_that_was_at_work_last_is_read_ahead(store: StateStore, tmp_path: Path) -> None:
    for tokens in (A, B):
        store.put(tokens, "", bytes(100), durable=True)
        assert store.wait_written(5)
    store.close(5)
    other = make(tmp_path)
    other.open()
    other.close(5)
    assert other.status.ram_bytes == 100


def test_a_state_larger_than_the_ram_goes_to_disk_all_the_same(store: StateStore) -> None:
    store.put(A, "", bytes(5000), durable=True)
    assert store.wait_written(5)
    assert store.status.ram_bytes == 0
    assert data_of(store, A) == bytes(5000)


def test_a_state_that_a_slot_keeps_is_on_disk_only(store: StateStore) -> None:
    store.put(A, "", bytes(10), durable=True, in_slot=True)
    assert store.wait_written(5)
    assert store.status.ram_bytes == 0
    assert data_of(store, A) == bytes(10)


def test_a_longer_state_takes_the_place_of_files_too(store: StateStore, tmp_path: Path) -> None:
    for end in (40, 60, 100):
        store.put(A[:end], "", bytes([end]), durable=True)
        assert store.wait_written(5)
    store.close(5)
    assert len(list(tmp_path.glob("*/*"))) == 1
    assert data_of(store, A) == bytes([100])


def test_the_disk_keeps_its_limit(tmp_path: Path) -> None:
    store = make(tmp_path, ram=0, disk=12_000)
    store.open()
    for number in range(5):
        store.put([number] * 10, "", bytes(5000), durable=True)
        assert store.wait_written(5)
    store.close(5)
    assert 5000 < store.status.disk_bytes <= 12_000
    assert [length(store.find([number] * 10, "")) for number in range(5)] == [0, 0, 0, 10, 10]


def test_a_damaged_file_is_forgotten_and_removed(store: StateStore, tmp_path: Path) -> None:
    store.put(A, "", bytes(100), durable=True, in_slot=True)
    assert store.wait_written(5)
    (path,) = tmp_path.glob("*/*")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert data_of(store, A) is None
    assert store.find(A, "") is None
    assert not path.exists()


def test_a_file_that_somebody_removed_is_forgotten(store: StateStore, tmp_path: Path) -> None:
    store.put(A, "", bytes(100), durable=True, in_slot=True)
    assert store.wait_written(5)
    next(tmp_path.glob("*/*")).unlink()
    assert data_of(store, A) is None
    assert store.status.states == 0


def test_a_disk_that_takes_nothing_is_left_alone_after_a_while(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = make(tmp_path / "file", ram=1000)
    store.open()
    for number in range(3):
        store.put([number] * 10, "", b"x", durable=True)
        assert store.wait_written(5)
    store.close(5)
    assert not store.durable
    assert data_of(store, [2] * 10) == b"x"


def test_prefetching_reads_a_state_into_the_ram_that_has_enough_of_a_prompt(store: StateStore) -> None:
    store.put(A, "", bytes(100), durable=True, in_slot=True)
    assert store.wait_written(5)
    store.prefetch(A, "", least=lambda: 101)
    assert store.status.ram_bytes == 0
    store.prefetch(A, "", least=lambda: 100)
    assert store.status.ram_bytes == 100


def test_clearing_leaves_nothing(store: StateStore, tmp_path: Path) -> None:
    store.put(A, "", bytes(100), durable=True)
    assert store.wait_written(5)
    store.put(B, "", bytes(100), durable=True)
    store.clear()
    store.close(5)
    assert store.status.states == 0
    assert list(tmp_path.glob("*/*")) == []


def test_a_state_that_is_cleared_while_it_is_written_leaves_no_file(tmp_path: Path) -> None:
    begun, cleared = threading.Event(), threading.Event()

    def answers_in(_: list[int], scope: str) -> list[StoredAnswer]:
        begun.set()
        cleared.wait(5)
        return []

    store = StateStore(StateFolder(tmp_path, STAMP, 1 << 20), 1000, answers_in)
    store.open()
    store.put(A, "", bytes(100), durable=True)
    assert begun.wait(5)
    store.clear()
    cleared.set()
    store.close(5)
    assert list(tmp_path.glob("*/*")) == []
