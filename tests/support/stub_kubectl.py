"""A `kubectl` for tests, as a program: it knows one cluster, which is a folder, and really forwards ports.

In the folder, `cluster.json` says what is there (see Cluster), `calls` gets each command line, and `forwards` the
process ids of the port-forwards.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

FOLDER = "STUB_KUBECTL"


class Cluster:
    """The cluster as a test sets it up: one Service in one namespace."""

    def __init__(self, folder: Path, backend_port: int) -> None:
        self.folder = folder
        self._facts: dict[str, Any] = {"port": backend_port, "pending": 0, "secret": None, "complaint": None}
        self.set()

    def set(self, **facts: Any) -> None:
        """Changes facts: `port` behind the Service, `pending` port-forwards that fail for want of a pod, the `secret`'s
        base64 text, a `complaint` of the API server about anything."""
        self._facts |= facts
        (self.folder / "cluster.json").write_text(json.dumps(self._facts))

    @property
    def calls(self) -> list[list[str]]:
        file = self.folder / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def forwards(self) -> list[int]:
        """Process ids, the newest last."""
        file = self.folder / "forwards"
        return [int(line) for line in file.read_text().split()] if file.exists() else []


def install(folder: Path) -> None:
    """Makes `kubectl` in `folder`, which is to be on PATH."""
    program = folder / "kubectl"
    program.write_text(f"#!{sys.executable}\nimport runpy\nrunpy.run_path({__file__!r}, run_name='__main__')\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def main(arguments: list[str]) -> int:
    folder = Path(os.environ[FOLDER])
    with (folder / "calls").open("a") as calls:
        leaked = ["KEY IN ENVIRONMENT"] if "LLAMA_CHAT_API_KEY" in os.environ else []
        calls.write(json.dumps([*arguments, *leaked]) + "\n")
    facts = json.loads((folder / "cluster.json").read_text())
    if facts["complaint"]:
        return _complain(facts["complaint"])
    if "port-forward" in arguments:
        return _forward(folder, facts)
    if "service" in arguments:
        ports = [{"name": "metrics", "port": 9}, {"name": "http", "port": 8080}]
        print(json.dumps({"spec": {"ports": ports}}))
        return 0
    if facts["secret"] is None:
        return _complain('Error from server (Forbidden): secrets "keys" is forbidden')
    print(facts["secret"], end="")
    return 0


def _complain(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


def _forward(folder: Path, facts: dict[str, Any]) -> int:
    if facts["pending"]:
        (folder / "cluster.json").write_text(json.dumps(facts | {"pending": facts["pending"] - 1}))
        return _complain("error: unable to forward port because pod is not running. Current status=Pending")
    with socket.create_server(("127.0.0.1", 0)) as server:
        with (folder / "forwards").open("a") as file:
            file.write(f"{os.getpid()}\n")
        print(f"Forwarding from 127.0.0.1:{server.getsockname()[1]} -> 8080", flush=True)
        while True:
            near, _ = server.accept()
            try:
                far = socket.create_connection(("127.0.0.1", facts["port"]))
            except OSError:
                return _complain("error: lost connection to pod")
            for pair in ((near, far), (far, near)):
                threading.Thread(target=_copy, args=pair, daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for sock in (source, sink):
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
