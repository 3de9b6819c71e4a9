"""`make fuzz MINUTES=30`: the trials with ever new seeds; what breaks something is written where a test replays it."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.hostile.trial import search_for
from tests.hostile.trials import TRIALS


def main(minutes: float, names: list[str]) -> int:
    trials = [trial for trial in TRIALS if not names or trial.name in names]
    if not trials:
        raise SystemExit(f"no such trial; there are {', '.join(trial.name for trial in TRIALS)}")
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"HOME": home, "XDG_RUNTIME_DIR": home}
        findings = search_for(trials, 60 * minutes, Path(home), lambda line: print(line, flush=True))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
