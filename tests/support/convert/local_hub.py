"""A hub on this machine that speaks the endpoints of Hugging Face, and misbehaves on request."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from llama_convert.convert import ConvertOptions
from llama_convert.hub.download import Downloader
from llama_convert.pull import PullOptions

LARGE = (".gguf", ".safetensors", ".bin", ".pth", ".model")
_ENDLESS = 1 << 15
"""Blocks of an endless answer: 2 GB are as good as that, and end when nobody is there any more."""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Fault:
    """What one answer does wrong.

    `status` is sent instead of the file, `cut` ends the connection after so many bytes, `total` is the size that is
    claimed, `whole` ignores the asked range, `body` is sent in place of the content,
    and `endless` sends more and more behind it.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    total: int | None = None
    whole: bool = False
    body: bytes | None = None
    endless: bool = False


class LocalHub:
    """Two servers, as in reality: the hub, and the store that it redirects to for large files."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.cards: dict[str, dict[str, Any]] = {}
        self.closed: dict[str, tuple[int, str]] = {}
        self.listings: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.sent: dict[str, int] = defaultdict(int)
        self._store = self._serve(_StoreHandler)
        self._hub = self._serve(_HubHandler)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._hub.server_address[1]}"

    @property
    def store(self) -> str:
        return f"http://localhost:{self._store.server_address[1]}"

    def close(self) -> None:
        for server in (self._hub, self._store):
            server.shutdown()
            server.server_close()

    def stored_requests(self, path: str) -> list[dict[str, str]]:
        """The headers of the requests for a large file at the store."""
        stored = [(address, headers) for address, headers in self.requests if address.startswith("/store/")]
        return [headers for address, headers in stored if address.endswith(path)]

    def _serve(self, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
        server = _Server(("127.0.0.1", 0), handler)
        vars(server)["hub"] = self
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error here."""


def sibling(path: str, raw: bytes) -> dict[str, Any]:
    """A file as the hub lists it."""
    blob = hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest()
    entry: dict[str, Any] = {"rfilename": path, "size": len(raw), "blobId": blob}
    if path.endswith(LARGE):
        entry["lfs"] = {"sha256": hashlib.sha256(raw).hexdigest(), "size": len(raw), "pointerSize": 134}
    return entry


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None: ...

    @property
    def hub(self) -> LocalHub:
        found = vars(self.server)["hub"]
        assert isinstance(found, LocalHub)
        return found

    def note(self) -> None:
        self.hub.requests.append((self.path, {key.lower(): value for key, value in self.headers.items()}))

    def misbehave(self, fault: Fault) -> None:
        """Answer with a status, or with a body that has no end."""
        if not fault.endless:
            self.answer(fault.status or 200, fault.body or b"", **fault.headers)
            return
        self.send_response(fault.status or 200)
        for name, value in fault.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        for _ in range(_ENDLESS):
            self.wfile.write(fault.body or bytes(1 << 16))

    def answer(self, status: int, body: bytes = b"", /, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        raise NotImplementedError


class _HubHandler(_Handler):
    def do_GET(self) -> None:
        self.note()
        path = self.path.partition("?")[0]
        repository = "/".join(path.removeprefix("/api/models").split("/")[1:3])
        if repository in self.hub.closed:
            status, code = self.hub.closed[repository]
            self.answer(status, X_Error_Code=code, X_Error_Message="no")
        elif repository not in self.hub.repositories:
            self.answer(404, X_Error_Code="RepoNotFound")
        elif path.startswith("/api/models/"):
            self._list(repository, path)
        else:
            self._resolve(repository, path)

    def _list(self, repository: str, path: str) -> None:
        if "/revision/" in path and path.rpartition("/")[2] not in ("main", COMMIT):
            self.answer(404, X_Error_Code="RevisionNotFound")
            return
        if repository in self.hub.listings:
            self.answer(200, self.hub.listings[repository], Content_Type="application/json")
            return
        files = self.hub.repositories[repository]
        siblings = [sibling(name, raw) for name, raw in files.items()]
        card = self.hub.cards.get(repository, {})
        body = {
            "id": repository,
            "modelId": repository,
            "sha": COMMIT,
            "siblings": siblings,
            "cardData": card,
            "tags": [],
        }
        self.answer(200, json.dumps(body).encode(), Content_Type="application/json")

    def _resolve(self, repository: str, path: str) -> None:
        name = path.partition(f"/resolve/{COMMIT}/")[2]
        raw = self.hub.repositories[repository].get(name)
        if raw is None:
            self.answer(404, X_Error_Code="EntryNotFound")
            return
        faults = self.hub.faults[name]
        if faults and not name.endswith(LARGE):
            self.misbehave(faults.pop(0))
            return
        if not name.endswith(LARGE):
            etag = sibling(name, raw)["blobId"]
            self.answer(200, raw, X_Repo_Commit=COMMIT, ETag=f'"{etag}"')
            return
        headers = {"X_Repo_Commit": COMMIT, "X_Linked_Size": str(len(raw)), "ETag": '"pointer"'}
        digest = hashlib.sha256(raw).hexdigest()
        location = f"{self.hub.store}/store/{repository}/{name}"
        self.answer(302, X_Linked_Etag=f'"{digest}"', Location=location, **headers)


class _StoreHandler(_Handler):
    def do_GET(self) -> None:
        self.note()
        _, _, owner, name, path = self.path.split("/", 4)
        faults = self.hub.faults[path]
        fault = faults.pop(0) if faults else Fault()
        raw = fault.body if fault.body is not None else self.hub.repositories[f"{owner}/{name}"][path]
        if fault.endless:
            self.misbehave(fault)
            return
        if fault.status:
            self.answer(fault.status, **fault.headers)
            return
        start = 0 if fault.whole else self._start()
        total = fault.total or len(raw)
        if start and start >= len(raw):
            self.answer(416, Content_Range=f"bytes */{total}")
            return
        self._send(path, raw[start:], fault, start, total)

    def _start(self) -> int:
        asked = self.headers.get("Range", "bytes=0-")
        return int(asked.removeprefix("bytes=").rstrip("-"))

    def _send(self, path: str, raw: bytes, fault: Fault, start: int, total: int) -> None:
        self.send_response(200 if fault.whole else 206)
        if not fault.whole:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(total - start))
        self.end_headers()
        sent = raw[: fault.cut] if fault.cut is not None else raw
        self.wfile.write(sent)
        self.hub.sent[path] += len(sent)
        if fault.cut is not None or len(raw) != total - start:
            self.close_connection = True


def pull_options(hub: LocalHub, conversion: ConvertOptions) -> PullOptions:
    """Options for pulling from `hub`, without pauses between attempts."""
    return PullOptions(conversion, endpoint=hub.endpoint, downloader=Downloader({}, lambda seconds: None))
