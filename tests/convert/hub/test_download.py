"""Large files arrive whole or not at all, whatever the network and the server do."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from pathlib import Path

import pytest

from llama_convert.errors import AccessDenied, ConvertError, CorruptSource, DownloadFailed, SourceNotFound
from llama_convert.hub.client import HubClient
from llama_convert.hub.download import Downloader, part_path
from llama_convert.hub.listing import RemoteFile
from tests.support.convert.local_hub import COMMIT, Fault, LocalHub
from tests.support.wait import until

REPOSITORY, NAME = "someone/model", "model.safetensors"
CONTENT = random.Random(1).randbytes(5_000_000)
FILE = RemoteFile(NAME, len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def hub(hub: LocalHub) -> LocalHub:
    hub.repositories[REPOSITORY] = {NAME: CONTENT}
    return hub


class Fetcher:
    """A downloader that notes how long it would have slept, and how far it got."""

    def __init__(self, hub: LocalHub, target: Path, headers: dict[str, str] | None = None) -> None:
        self.slept: list[float] = []
        self.progress: list[int] = []
        self._url = f"{hub.endpoint}/{REPOSITORY}/resolve/{COMMIT}/{NAME}"
        self._downloader = Downloader(headers or {}, self.slept.append)
        self._target = target

    def fetch(self, file: RemoteFile = FILE) -> str:
        return self._downloader.fetch(REPOSITORY, self._url, file, self._target, self.progress.append)


@pytest.fixture
def fetcher(hub: LocalHub, tmp_path: Path) -> Fetcher:
    return Fetcher(hub, tmp_path / NAME)


def test_a_file_arrives(hub: LocalHub, fetcher: Fetcher, tmp_path: Path) -> None:
    assert fetcher.fetch() == FILE.sha256
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert fetcher.progress[-1] == FILE.size


def test_cut_connections_go_on_where_they_stopped(hub: LocalHub, fetcher: Fetcher, tmp_path: Path) -> None:
    hub.faults[NAME] = [Fault(cut=1_000_000), Fault(cut=0), Fault(cut=2_000_000)]
    fetcher.fetch()
    assert (tmp_path / NAME).read_bytes() == CONTENT
    until(lambda: hub.sent[NAME] >= len(CONTENT), what="that the hub's thread counts all that it sent")
    assert hub.sent[NAME] == len(CONTENT), "no byte is sent twice"


def test_a_later_call_goes_on_at_the_byte(hub: LocalHub, fetcher: Fetcher, tmp_path: Path) -> None:
    part_path(tmp_path / NAME, FILE).write_bytes(CONTENT[:3_000_001])
    fetcher.fetch()
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert hub.sent[NAME] == len(CONTENT) - 3_000_001
    assert fetcher.progress[0] == 3_000_001


def test_a_killed_process_goes_on_at_the_byte(hub: LocalHub, fetcher: Fetcher, tmp_path: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from llama_convert.hub.download import Downloader
from llama_convert.hub.listing import RemoteFile
def slow(done):
    print(done, flush=True)
    time.sleep(0.2)
file = RemoteFile("model.safetensors", int(sys.argv[3]), sys.argv[4])
Downloader({}).fetch("someone/model", sys.argv[1], file, Path(sys.argv[2]), slow)
"""
    url = f"{hub.endpoint}/{REPOSITORY}/resolve/{COMMIT}/{NAME}"
    command = [sys.executable, "-c", script, url, str(tmp_path / NAME), str(FILE.size), str(FILE.sha256)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) > 1_500_000:
                child.kill()
                break
    left = part_path(tmp_path / NAME, FILE).stat().st_size
    assert 1_500_000 < left < FILE.size
    hub.sent.clear()
    fetcher.fetch()
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert hub.sent[NAME] == FILE.size - left


def test_a_server_without_ranges_starts_over(hub: LocalHub, fetcher: Fetcher, tmp_path: Path) -> None:
    hub.faults[NAME] = [Fault(cut=1_000_000), Fault(whole=True, cut=500_000), Fault(whole=True)]
    fetcher.fetch()
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_an_unsatisfiable_range_starts_over(hub: LocalHub, fetcher: Fetcher, tmp_path: Path) -> None:
    hub.faults[NAME] = [Fault(cut=1_000_000), Fault(status=416)]
    fetcher.fetch()
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_dropped(fetcher: Fetcher, tmp_path: Path) -> None:
    part_path(tmp_path / NAME, FILE).write_bytes(CONTENT + b"more")
    fetcher.fetch()
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_wrong_bytes_are_refused_and_removed(hub: LocalHub, fetcher: Fetcher, tmp_path: Path) -> None:
    hub.faults[NAME] = [Fault(body=CONTENT[:-1] + b"x")]
    with pytest.raises(CorruptSource, match="SHA-256"):
        fetcher.fetch()
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_part_is_noticed_at_the_end(fetcher: Fetcher, tmp_path: Path) -> None:
    part_path(tmp_path / NAME, FILE).write_bytes(b"z" * 1000)
    with pytest.raises(CorruptSource, match="SHA-256"):
        fetcher.fetch()
    fetcher.fetch()
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize("total", [4_999_999, 5_000_001, 9_000_000])
@pytest.mark.parametrize("whole", [False, True])
def test_a_server_that_lies_about_the_size_is_refused(
    hub: LocalHub, fetcher: Fetcher, tmp_path: Path, total: int, whole: bool
) -> None:
    hub.faults[NAME] = [Fault(total=total, whole=whole)]
    with pytest.raises(DownloadFailed, match=f"the server has {total} bytes, but the hub lists 5000000"):
        fetcher.fetch()
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(hub: LocalHub, fetcher: Fetcher, tmp_path: Path, status: int) -> None:
    hub.faults[NAME] = [Fault(status=status, headers={"Retry-After": "7"}), Fault(status=status)]
    fetcher.fetch()
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert fetcher.slept == [7.0, 2.0]


def test_a_server_that_stays_busy_is_given_up(hub: LocalHub, fetcher: Fetcher) -> None:
    hub.faults[NAME] = [Fault(status=429)] * 20
    with pytest.raises(DownloadFailed, match=r"HTTP status 429 \(127"):
        fetcher.fetch()
    assert len(fetcher.slept) == 5


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [(401, AccessDenied, "HF_TOKEN"), (403, AccessDenied, "no access"), (404, SourceNotFound, NAME)],
)
def test_refusals_are_told_apart(
    hub: LocalHub, fetcher: Fetcher, status: int, error: type[ConvertError], message: str
) -> None:
    hub.faults[NAME] = [Fault(status=status)]
    with pytest.raises(error, match=message):
        fetcher.fetch()
    assert fetcher.slept == []


def test_the_token_does_not_go_to_the_store(hub: LocalHub, tmp_path: Path) -> None:
    Fetcher(hub, tmp_path / NAME, {"Authorization": "Bearer secret"}).fetch()
    first, *_ = hub.requests
    assert first[1]["authorization"] == "Bearer secret"
    assert all("authorization" not in headers for headers in hub.stored_requests(NAME))


def test_an_unreachable_hub_is_given_up(hub: LocalHub, fetcher: Fetcher) -> None:
    hub.close()
    with pytest.raises(DownloadFailed, match=NAME):
        fetcher.fetch()


def test_the_token_stays_home_unless_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert HubClient("https://huggingface.co").headers()["authorization"] == "Bearer secret"
    assert "authorization" not in HubClient("https://mirror.example").headers()
    assert HubClient("https://mirror.example", send_token=True).headers()["authorization"] == "Bearer secret"
