"""What is tried with hostile input: cases, and what must hold for each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from random import Random

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

FOUND = Path(__file__).parent / "found"
"""Cases that broke something once: `NAME-DIGEST.case`, each replayed by `make test`."""

Check = Callable[[bytes], None]
"""Feeds one case to the program; raises AssertionError, or lets through what must not come out."""


@dataclass(frozen=True)
class Trial:
    """Cases for one surface of the program. Each is bytes, so that a case that breaks something is a file."""

    name: str
    """A word or two with dashes; the first part of the names of its files in FOUND."""
    cases: SearchStrategy[bytes]
    opened: Callable[[Path], AbstractContextManager[Check]]
    """Sets up what is tried, in an empty folder, for as long as the context lasts."""
    examples: int = 100
    """Cases in `make test`."""
    known: tuple[bytes, ...] = field(default=())
    """Cases that are always tried: those that broke something in an earlier version."""


@dataclass(frozen=True)
class Finding:
    """A case that broke something, made as small as hypothesis could."""

    trial: str
    case: bytes
    error: BaseException

    def write(self, folder: Path = FOUND) -> Path:
        """Writes the case to where `make test` replays it."""
        folder.mkdir(exist_ok=True)
        path = folder / f"{self.trial}-{sha256(self.case).hexdigest()[:12]}.case"
        path.write_bytes(self.case)
        return path


def replayed(trial: Trial, folder: Path = FOUND) -> Iterator[bytes]:
    """The cases that are always tried: those that the trial knows, and those in files."""
    yield from trial.known
    for path in sorted(folder.glob(f"{trial.name}-*.case")):
        yield path.read_bytes()


def search(trial: Trial, check: Check, examples: int, number: int) -> Finding | None:
    """Tries `examples` cases that follow from the seed `number`; returns the smallest that breaks something."""
    last: list[bytes] = []

    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(trial.cases)
    def attempt(case: bytes) -> None:
        last[:] = [case]
        check(case)

    try:
        attempt()
    except Exception as error:  # noqa: BLE001 - whatever comes out is what was looked for
        return Finding(trial.name, last[0] if last else b"", error)
    return None


def search_for(
    trials: list[Trial], seconds: float, work: Path, say: Callable[[str], None], found: Path = FOUND
) -> list[Finding]:
    """Goes round the trials with ever new seeds for as long, and writes what it finds to `found`; returns that."""
    end = time.monotonic() + seconds
    numbers = Random()
    findings: list[Finding] = []
    while time.monotonic() < end:
        for trial in trials:
            number = numbers.getrandbits(32)
            with trial.opened(work) as check:
                finding = search(trial, check, trial.examples, number)
            if finding is not None:
                findings.append(finding)
                say(f"{trial.name}, seed {number}: {finding.error!r}\n  case: {finding.write(found)}")
            if time.monotonic() >= end:
                break
        say(f"{max(0.0, end - time.monotonic()):.0f} s left, {len(findings)} found")
    return findings
