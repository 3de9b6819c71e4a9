"""Hostile input to every surface: cases that broke something once, and others from a fixed seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.trial import Trial, replayed, search
from tests.hostile.trials import TRIALS

_SEED = 20_261_125


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.name)
def test_it_holds(trial: Trial, tmp_path: Path) -> None:
    with trial.opened(tmp_path) as check:
        for case in replayed(trial):
            check(case)
        finding = search(trial, check, trial.examples, _SEED)
    assert finding is None, f"{finding.case[:2000]!r}: {finding.error!r}"
