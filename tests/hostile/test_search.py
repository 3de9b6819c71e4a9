"""What `make fuzz` rests on: it finds what breaks, makes it small, and writes it where it is replayed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

from tests.hostile.trial import Check, Trial, replayed, search, search_for


@contextmanager
def breaks_on_x(_: Path) -> Iterator[Check]:
    def check(case: bytes) -> None:
        assert b"x" not in case

    yield check


FRAGILE = Trial("fragile", st.binary(max_size=50).map(lambda raw: raw.replace(b"\1", b"x")), breaks_on_x, examples=500)
STURDY = Trial("sturdy", st.just(b"y"), breaks_on_x, known=(b"z",))


def test_the_smallest_case_that_breaks_is_found(tmp_path: Path) -> None:
    with FRAGILE.opened(tmp_path) as check:
        finding = search(FRAGILE, check, FRAGILE.examples, 1)
    assert finding is not None
    assert (finding.case, type(finding.error)) == (b"x", AssertionError)


def test_nothing_is_found_where_nothing_breaks(tmp_path: Path) -> None:
    with STURDY.opened(tmp_path) as check:
        assert search(STURDY, check, 10, 1) is None


def test_what_was_found_is_replayed(tmp_path: Path) -> None:
    with FRAGILE.opened(tmp_path) as check:
        finding = search(FRAGILE, check, FRAGILE.examples, 1)
    assert finding is not None
    finding.write(tmp_path)
    assert list(replayed(FRAGILE, tmp_path)) == [b"x"]
    assert list(replayed(STURDY, tmp_path)) == [b"z"]


def test_the_search_writes_what_it_finds_and_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    assert search_for([STURDY, FRAGILE], 0.3, tmp_path, said.append, tmp_path / "found")
    assert list(replayed(FRAGILE, tmp_path / "found")) == [b"x"]
    assert any(line.startswith("fragile, seed ") for line in said)
