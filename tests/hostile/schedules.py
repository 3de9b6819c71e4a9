"""Schedules of the engine: who comes when, who goes, what is kept and what gives way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

from tests.hostile.trial import Check, Trial
from tests.support.engine.schedules import run_schedule


@contextmanager
def _engine(_: Path) -> Iterator[Check]:
    def check(case: bytes) -> None:
        run_schedule(case)

    yield check


SCHEDULES = Trial("schedules", st.binary(min_size=100, max_size=600), _engine, examples=50)
