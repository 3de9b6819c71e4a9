"""The key file's lines, and what an account may take."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llama_backend.account import Account, scope_of
from llama_backend.errors import InvalidRequest, QueueFull, RateLimited
from llama_backend.server.access.admission import Admission
from llama_backend.server.access.api_keys import KeyFile, parse_keys
from llama_backend.server.access.rate_limit import RateLimits
from llama_backend.server.secret_file import LARGEST
from tests.backend.server.conftest import Serve
from tests.backend.server.http.test_metrics_page import metrics
from tests.support.server.harness import CHAT, chat, free_port
from tests.support.wait import until

KEYS = """
# keys of ours
plain
k1 name=alice weight=2 max_running=4 requests_per_minute=60
k2   requests_per_minute=0.5   name=bob
k3 name=alice weight=2 max_running=4 requests_per_minute=60
"""


def test_a_line_has_a_key_and_what_its_account_may_take() -> None:
    alice = Account("alice", 2, 4, 60)
    bob = Account("bob", requests_per_minute=0.5)
    (key, unnamed), *named = parse_keys(KEYS)
    assert (key, unnamed.name) == (b"plain", "line3")
    assert named == [(b"k1", alice), (b"k2", bob), (b"k3", alice)]


def test_an_account_without_a_name_is_the_same_on_another_line_and_no_other_key_takes_its_place() -> None:
    before, after = parse_keys("one\ntwo"), parse_keys("new\none\ntwo")
    scopes = [{key: scope_of(account, False, None) for key, account in keys} for keys in (before, after)]
    assert len(set(scopes[1].values())) == 3
    assert scopes[0].items() <= scopes[1].items()


def test_what_tells_accounts_apart_cannot_be_set_and_does_not_name_the_key() -> None:
    ((_, account),) = parse_keys("my-secret-key")
    assert "my-secret-key" not in repr(account)
    with pytest.raises(InvalidRequest, match="may follow the key"):
        parse_keys("key identity=x")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("secret name", "may follow the key"),
        ("secret colour=red", "may follow the key"),
        ("secret name=", "name"),
        ("secret name=a/b", "name"),
        ("secret weight=0", "weight"),
        ("secret weight=nan", "weight"),
        ("secret weight=heavy", "weight"),
        ("secret max_running=0", "max_running"),
        ("secret max_running=1.5", "max_running"),
        ("secret requests_per_minute=-1", "requests_per_minute"),
        ("a name=x\nsecret name=x weight=2", "'x'"),
    ],
)
def test_a_line_that_is_wrong_is_named_and_no_key_is_told(line: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        parse_keys(line)
    assert f"line {len(line.splitlines())}" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_turns_wrong_changes_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    path.write_text("k1 name=alice")
    keys = KeyFile(path)
    path.write_text("k1 name=alice weight=much")
    assert [keys.find("k1") for _ in range(3)] == [Account("alice")] * 3
    assert caplog.text.count("weight") == 1
    path.write_text("k1 name=alice weight=3")
    assert keys.find("k1") == Account("alice", 3)


@pytest.mark.parametrize("kind", ["pipe", "folder", "large", "binary", "device"])
def test_a_file_that_is_none_is_told_and_holds_nobody_up(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "keys"
    path.write_text("k1 name=alice")
    keys = KeyFile(path)
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "large":
            path.write_bytes(b"k2\n" * LARGEST)
        case "binary":
            path.write_bytes(b"\xff\xfe\0")
        case "device":
            path.symlink_to("/dev/zero")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        KeyFile(path)
    assert keys.find("k1") == Account("alice")


@pytest.mark.parametrize(("mode", "text"), [(0o600, None), (0o640, None), (0o644, "can read"), (0o662, "can change")])
def test_a_file_that_others_can_get_at_is_pointed_out_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, text: str | None
) -> None:
    path = tmp_path / "keys"
    path.write_text("k1 name=alice")
    path.chmod(mode)
    keys = KeyFile(path)
    path.write_text("k1 name=alice weight=2")
    assert keys.find("k1") == Account("alice", 2)
    assert caplog.text.count("holds API keys") == (text is not None)
    assert (text or "") in caplog.text
    assert "k1" not in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_a_file_of_another_user_is_pointed_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    path.write_text("k1 name=alice")
    path.chmod(0o600)
    os.chown(path, 12345, -1)
    KeyFile(path)
    assert "belongs to another user" in caplog.text


def test_a_rate_is_of_any_minute_and_tells_how_long_to_wait() -> None:
    limits, account = RateLimits(), Account("a", requests_per_minute=3)
    for now in (0.0, 0.0, 1.0):
        limits.take(account, now)
    with pytest.raises(RateLimited) as caught:
        limits.take(account, 2.0)
    assert caught.value.retry_after == pytest.approx(18.0)
    limits.take(account, 20.1)
    with pytest.raises(RateLimited):
        limits.take(account, 20.2)
    limits.take(Account("b", requests_per_minute=3), 20.2)
    limits.take(Account("c"), 20.2)


def test_a_rate_below_one_lets_one_in() -> None:
    limits, account = RateLimits(), Account("a", requests_per_minute=0.5)
    limits.take(account, 0.0)
    with pytest.raises(RateLimited) as caught:
        limits.take(account, 0.0)
    assert caught.value.retry_after == 120


def test_a_full_queue_has_room_for_those_who_have_less_than_their_part() -> None:
    admission, flood, other = Admission(4), Account("flood"), Account("other")
    entered = [admission.enter(1, account=flood) for _ in range(5)]
    for each in entered:
        each.__enter__()
    with pytest.raises(QueueFull), admission.enter(1, account=flood):
        pass
    with admission.enter(1, account=other), admission.enter(1, account=other):
        with pytest.raises(QueueFull), admission.enter(1, account=other):
            pass
        with pytest.raises(QueueFull), admission.enter(1, account=flood):
            pass
    for each in entered:
        each.__exit__(None, None, None)
    assert admission.inside == 0


def test_keys_with_limits_over_http(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("k1 name=alice requests_per_minute=2\nk2 name=bob\n")
    server = serve(host="127.0.0.1", port=free_port(), api_key_file=str(tmp_path / "keys"))
    with server.tcp(headers={"Authorization": "Bearer k1"}) as client:
        assert client.post(CHAT, json={"messages": []}).status_code == 400
        assert [client.post(CHAT, json=chat("a b")).status_code for _ in range(3)] == [200, 200, 429]
        answer = client.post(CHAT, json=chat("a b", stream=True))
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert 1 <= int(answer.headers["retry-after"]) <= 30
        assert client.get("/v1/models").status_code == 200
    with server.tcp(headers={"Authorization": "Bearer k2"}) as client:
        assert client.post(CHAT, json=chat("a b")).status_code == 200
    until(lambda: metrics(server)("key_tokens_total", key="bob") == 4, what="the count of tokens")
    assert (metrics(server)("key_requests_total", key="alice"), metrics(server)("key_requests_total", key="bob")) == (
        2,
        1,
    )
