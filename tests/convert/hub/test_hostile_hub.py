"""A hub that lies about names, sizes and paths, or never stops sending, does no harm outside its own repository."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from llama_convert.convert import ConvertOptions
from llama_convert.errors import ConvertError, CorruptSource, DownloadFailed, UnsupportedModel
from llama_convert.hub.catalogue import parse_target
from llama_convert.hub.client import HubClient
from llama_convert.hub.download import Downloader
from llama_convert.hub.http import Pace, check_redirect
from llama_convert.hub.listing import Listing, RemoteFile, checked
from llama_convert.progress import Silent
from llama_convert.pull import PullOptions, pull
from llama_convert.untrusted import MOST_CONFIG
from tests.support.convert.local_hub import COMMIT, Fault, LocalHub, pull_options, sibling

REPOSITORY, NAME = "someone/tiny", "model.safetensors"


@pytest.fixture
def hub(hub: LocalHub) -> LocalHub:
    hub.repositories[REPOSITORY] = {"config.json": b"{}", NAME: b"weights" * 30_000}
    return hub


@pytest.fixture
def options(hub: LocalHub, tmp_path: Path) -> PullOptions:
    return pull_options(hub, ConvertOptions(tmp_path / "models"))


def listed(**changes: Any) -> bytes:
    """A list of files as the hub sends it."""
    whole = {"sha": COMMIT, "siblings": [sibling("config.json", b"{}"), sibling(NAME, b"x")], "cardData": {}, **changes}
    return json.dumps(whole).encode()


def one_file(**changes: Any) -> bytes:
    return listed(siblings=[sibling("config.json", b"{}"), sibling(NAME, b"x") | changes])


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("sha", ["../../../..", "../../..", "..", "", "main", "/tmp", "0" * 39, "0" * 40 + "\n", 5])
def test_a_commit_that_is_a_path_is_refused(hub: LocalHub, options: PullOptions, tmp_path: Path, sha: object) -> None:
    """It names a folder of ours, which is removed when a model is installed or turns out to be broken."""
    (tmp_path / "precious").write_text("precious")
    hub.repositories[REPOSITORY]["tiny.Q4_K_M.gguf"] = b"GGUF junk"
    hub.listings[REPOSITORY] = listed(sha=sha, siblings=[sibling("tiny.Q4_K_M.gguf", b"GGUF junk")])
    with pytest.raises(DownloadFailed, match=r"not a commit|not answer with a list of files"):
        pull(parse_target(REPOSITORY), options, Silent())
    assert tree(tmp_path) == ["precious"]


PATHS = ["../x.safetensors", "/etc/x.safetensors", "a/../../x.safetensors", "a//x.safetensors", "./x.safetensors", ""]


@pytest.mark.parametrize("path", [*PATHS, "..\\x.safetensors", "x\0.safetensors", "x\n.safetensors", "x" * 2000])
def test_a_path_that_leads_elsewhere_is_refused(hub: LocalHub, options: PullOptions, tmp_path: Path, path: str) -> None:
    hub.listings[REPOSITORY] = one_file(rfilename=path)
    with pytest.raises(DownloadFailed, match="a file with the impossible path"):
        pull(parse_target(REPOSITORY), options, Silent())
    assert tree(tmp_path) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"size": -1},
        {"size": 2**60},
        {"size": "5"},
        {"blobId": "../../x"},
        {"blobId": 5},
        {"lfs": {"sha256": "../../../x"}},
        {"lfs": {"sha256": "/" * 64}},
        {"lfs": 5},
        {"rfilename": None},
    ],
)
def test_impossible_sizes_and_digests_are_refused(
    hub: LocalHub, options: PullOptions, tmp_path: Path, changes: dict[str, Any]
) -> None:
    hub.listings[REPOSITORY] = one_file(**changes)
    with pytest.raises(DownloadFailed, match=r"impossible size or digest|not answer with a list of files"):
        pull(parse_target(REPOSITORY), options, Silent())
    assert tree(tmp_path) == []


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b"<html>",
        b'{"sha": ' * 100_000,
        listed(siblings=5),
        listed(siblings=[5]),
        listed(cardData=[]),
        listed(padding="x" * MOST_CONFIG),
        b'{"siblings": [' + b"[]," * 2_000_000 + b"0]}",
    ],
    ids=range(10),
)
def test_an_answer_that_is_no_list_of_files_is_refused(hub: LocalHub, raw: bytes) -> None:
    hub.listings[REPOSITORY] = raw
    with pytest.raises(DownloadFailed, match=r"not answer with a list of files|more than 8388608 bytes") as found:
        HubClient(hub.endpoint).listing(REPOSITORY, None)
    assert len(str(found.value)) <= 1001


def test_a_list_of_very_many_files_is_refused() -> None:
    with pytest.raises(DownloadFailed, match="100001 files"):
        checked(Listing(REPOSITORY, COMMIT, [RemoteFile("x", 0)] * 100_001))


@pytest.mark.parametrize("license", [["mit"], {"a": 1}, 5, "x" * 10_000])
def test_a_licence_that_is_no_name_is_left_out(hub: LocalHub, license: object) -> None:
    hub.listings[REPOSITORY] = listed(cardData={"license": license})
    assert HubClient(hub.endpoint).listing(REPOSITORY, None).license is None


@pytest.mark.parametrize("name", ["-rf.gguf", ".hidden.gguf", "a/ x.gguf", ".gguf", "x" * 250 + ".gguf"])
def test_names_that_a_model_cannot_have_are_refused(
    hub: LocalHub, options: PullOptions, tmp_path: Path, name: str
) -> None:
    hub.repositories[REPOSITORY] = {name: b"GGUF junk"}
    with pytest.raises(UnsupportedModel, match="cannot be the name of a model"):
        pull(parse_target(REPOSITORY), options, Silent())
    assert tree(tmp_path) == []


def test_a_small_file_that_is_listed_as_huge_is_refused(hub: LocalHub, options: PullOptions) -> None:
    hub.listings[REPOSITORY] = listed(siblings=[sibling("config.json", b"{}") | {"size": 10**9}, sibling(NAME, b"x")])
    with pytest.raises(UnsupportedModel, match=r"config\.json has 1000000000 bytes"):
        pull(parse_target(REPOSITORY), options, Silent())
    assert not [path for path, _ in hub.requests if "/resolve/" in path]


def test_very_many_small_files_are_refused(hub: LocalHub, options: PullOptions) -> None:
    hub.repositories[REPOSITORY] |= {f"tokenizer{number}.json": b"{}" for number in range(300)}
    with pytest.raises(UnsupportedModel, match="301 small files"):
        pull(parse_target(REPOSITORY), options, Silent())


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["config.json", NAME])
def test_an_endless_answer_is_cut_off(hub: LocalHub, options: PullOptions, tmp_path: Path, name: str) -> None:
    hub.faults[name] = [Fault(endless=True)] * 10
    hub.repositories[REPOSITORY]["config.json"] = CONFIG
    with pytest.raises(DownloadFailed, match=rf"{name}: the server sends more than the \d+ bytes"):
        fetch(hub, name, tmp_path / name)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1 << 20


CONFIG = b"{}"


def fetch(hub: LocalHub, name: str, target: Path, **more: Any) -> str:
    raw = hub.repositories[REPOSITORY][name]
    url = f"{hub.endpoint}/{REPOSITORY}/resolve/{COMMIT}/{name}"
    downloader = Downloader({"Authorization": "Bearer secret"}, lambda seconds: None, **more)
    return downloader.fetch(REPOSITORY, url, RemoteFile(name, len(raw)), target, lambda done: None)


@pytest.mark.timeout(60)
def test_redirects_that_go_round_are_given_up(hub: LocalHub, tmp_path: Path) -> None:
    hub.faults["config.json"] = [Fault(status=302, headers={"Location": "?again"})] * 200
    with pytest.raises(DownloadFailed, match="redirects more than 10 times"):
        fetch(hub, "config.json", tmp_path / "config.json")


@pytest.mark.timeout(60)
def test_the_body_of_a_redirect_is_not_read(hub: LocalHub, tmp_path: Path) -> None:
    away = Fault(status=302, headers={"Location": f"{hub.store}/store/{REPOSITORY}/{NAME}"}, endless=True)
    hub.faults["config.json"] = [away]
    hub.repositories[REPOSITORY]["config.json"] = hub.repositories[REPOSITORY][NAME]
    fetch(hub, "config.json", tmp_path / "config.json")
    assert (tmp_path / "config.json").read_bytes() == hub.repositories[REPOSITORY][NAME]
    assert [headers.get("authorization") for _, headers in hub.requests] == ["Bearer secret", None]


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1", "https://["])
def test_redirects_to_something_else_than_http_are_refused(hub: LocalHub, tmp_path: Path, place: str) -> None:
    hub.faults["config.json"] = [Fault(status=302, headers={"Location": place})] * 10
    with pytest.raises(DownloadFailed, match=r"config.json|redirects from http to"):
        fetch(hub, "config.json", tmp_path / "config.json")
    assert not (tmp_path / "config.json").exists()


def test_a_redirect_from_https_to_http_is_not_followed() -> None:
    with pytest.raises(DownloadFailed, match="from https to http"):
        check_redirect(httpx2.URL("https://hub.example/x"), httpx2.URL("http://127.0.0.1/x"))
    check_redirect(httpx2.URL("https://hub.example/x"), httpx2.URL("https://store.example/x"))


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(hub: LocalHub, tmp_path: Path) -> None:
    """The clock jumps a minute with each look at it, as if every block had taken so long."""
    minutes = itertools.count(0.0, Pace.PERIOD)
    hub.faults[NAME] = [Fault(cut=10)] * 20
    with pytest.raises(DownloadFailed, match=r"less than 65536 bytes in 60 seconds"):
        fetch(hub, NAME, tmp_path / NAME, clock=lambda: next(minutes))


def test_a_server_that_ends_after_each_byte_is_given_up(hub: LocalHub, tmp_path: Path) -> None:
    hub.faults[NAME] = [Fault(cut=1)] * 1000
    with pytest.raises(DownloadFailed, match="closed connection"):
        fetch(hub, NAME, tmp_path / NAME)
    assert len(hub.stored_requests(NAME)) < 10


@pytest.mark.parametrize(
    "headers",
    [{"Content-Range": "bytes 0-²/²"}, {"Retry-After": "²"}, {"Retry-After": "9" * 5000}, {"Location": "\xff"}],
)
@pytest.mark.parametrize("status", [206, 302, 416, 429])
def test_senseless_headers_are_an_error_of_ours(
    hub: LocalHub, tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    hub.faults[NAME] = [Fault(status=status, headers=headers)] * 20
    with pytest.raises(ConvertError):
        fetch(hub, NAME, tmp_path / NAME)


def test_what_a_hostile_model_says_of_itself_is_no_part_of_its_record(
    hub: LocalHub, options: PullOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.gguf_files import Array, gguf

    monkeypatch.setattr("llama_convert.output.ready_made.check_model", lambda *_, **__: [1])
    metadata = {
        "general.architecture": "llama",
        "general.license": Array(8, ["x"] * 1000),
        "llama.context_length": float("nan"),
    }
    hub.repositories[REPOSITORY] = {"tiny.Q4_K_M.gguf": gguf(metadata)}
    product = pull(parse_target(REPOSITORY), options, Silent()).products[0]
    record = json.loads(product.path.with_suffix(".json").read_text())
    assert (record["license"], record["context"]) == (None, None)


def test_a_link_in_place_of_a_model_is_no_way_out(hub: LocalHub, options: PullOptions, tmp_path: Path) -> None:
    hub.repositories[REPOSITORY] = {"tiny.Q4_K_M.gguf": b"GGUF junk"}
    options.models.mkdir()
    (options.models / "tiny.Q4_K_M.gguf").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConvertError, match="exists already"):
        pull(parse_target(REPOSITORY), options, Silent())
    forced = replace(options, conversion=replace(options.conversion, force=True))
    with pytest.raises(CorruptSource):
        pull(parse_target(REPOSITORY), forced, Silent())
    assert not (tmp_path / "elsewhere").exists()
    assert os.path.lexists(options.models / "tiny.Q4_K_M.gguf")
