"""The router's settings in a real HAProxy, between a client and two backends."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest

from tests.container.manifests import manifests, needs_kubectl, of_kind
from tests.container.podman import free_port, wait_for

pytestmark = [
    needs_kubectl,
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="there is no haproxy"),
]
TEMPLATE = "server-template pod 16 llama-chat-pods.llama-chat.svc.cluster.local:8080"


class Pod(ThreadingHTTPServer):
    """A backend that answers with its port; one that is ill fails its probe."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.is_well = True
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Pod)
        self.send_response(200 if self.server.is_well else 503)
        self.end_headers()
        self.wfile.write(str(self.server.server_port).encode())

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def pods() -> Iterator[list[Pod]]:
    found = [Pod(), Pod()]
    yield found
    for pod in found:
        pod.shutdown()
        pod.server_close()


@pytest.fixture
def settings() -> str:
    """The router's settings as the overlay renders them."""
    maps = of_kind(manifests("uk8s-cuda-scaled"), "ConfigMap")
    return next(str(item["data"]["haproxy.cfg"]) for item in maps if "haproxy.cfg" in item["data"])


@pytest.fixture
def url(settings: str, pods: list[Pod], tmp_path: Path) -> Iterator[str]:
    """A router to the pods: addresses instead of names, and quick probes."""
    api, health = free_port(), free_port()
    line = next(line for line in settings.splitlines() if TEMPLATE in line)
    servers = [
        f"    server pod{number} 127.0.0.1:{pod.server_port} check inter 100ms fall 2 rise 1"
        for number, pod in enumerate(pods)
    ]
    text = settings.replace(line, "\n".join(servers))
    text = text.replace("bind :8080", f"bind 127.0.0.1:{api}").replace("bind :8081", f"bind 127.0.0.1:{health}")
    (tmp_path / "haproxy.cfg").write_text(text)
    with subprocess.Popen(["haproxy", "-db", "-f", tmp_path / "haproxy.cfg"], stdout=subprocess.DEVNULL) as process:
        wait_for(f"http://127.0.0.1:{health}/readyz", 20)
        wait_for(f"http://127.0.0.1:{health}/livez", 5)
        yield f"http://127.0.0.1:{api}"
        process.terminate()


def ask(url: str, session: str) -> str:
    """Who answered."""
    return httpx2.get(f"{url}/v1/models", headers={"X-Session-ID": session}, timeout=10).text


def test_the_settings_are_valid_as_they_are(settings: str, tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text(settings)
    done = subprocess.run(["haproxy", "-c", "-f", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_session_stays_with_one_pod_and_sessions_spread(url: str) -> None:
    homes = {f"session-{number}": ask(url, f"session-{number}") for number in range(20)}
    assert len(set(homes.values())) == 2
    assert {name: ask(url, name) for name in homes} == homes


def test_sessions_of_a_pod_that_is_gone_move(url: str, pods: list[Pod]) -> None:
    homes = {f"session-{number}": ask(url, f"session-{number}") for number in range(20)}
    gone, other = pods
    gone.shutdown()
    gone.server_close()
    moved = {name: ask(url, name) for name in homes}
    assert set(moved.values()) == {str(other.server_port)}
