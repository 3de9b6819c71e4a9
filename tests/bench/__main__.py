"""`make bench`: this backend beside other programs, in one run, on the demo model.

`python -m tests.bench [SECTION]…` measures some sections only. Set LLAMA_REFERENCE to a folder with llama.cpp's own
llama-server, llama-cli and llama-bench, built from the sources that the pinned llama-cpp-python carries. Nothing else
should run on the machine meanwhile.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from llama_backend.models.installed import demo_model
from tests.bench import commands, crowd, interleaving, servers, sharing, stall
from tests.bench.busy import measure_busy
from tests.bench.programs import reference_folder
from tests.bench.reopening import reopen
from tests.bench.speculation import speculation

Section = Callable[[Path, Path | None], Iterable[str]]

SECTIONS: dict[str, Section] = {
    "servers": servers.rows,
    "sharing": lambda model, reference: (each.row(name) for name, each in sharing.measure(model, reference).items()),
    "stall": lambda model, reference: (each.row(name) for name, each in stall.measure(model, reference).items()),
    "crowd": lambda model, reference: (each.row(name) for name, each in crowd.measure(model, reference).items()),
    "interleaving": interleaving.rows,
    "reopening": lambda model, _: [reopen(model).row],
    "busy": lambda model, reference: [measure_busy(model, reference).row],
    "speculation": speculation,
    "commands": commands.rows,
}


def main(names: list[str]) -> None:
    model = demo_model()
    if model is None:
        raise SystemExit("the demo model is not installed")
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"HOME": home, "XDG_RUNTIME_DIR": home, "LLM_USER_PATH": home}
        for name in names or SECTIONS:
            for row in SECTIONS[name](model.path, reference_folder()):
                print(row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
