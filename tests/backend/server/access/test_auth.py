from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import openai
import pytest

from llama_backend.errors import InvalidRequest
from llama_backend.server.access.api_keys import KeyFile
from llama_backend.server.listen.sockets import is_loopback
from llama_backend.server_config import ServerConfig
from llama_backend.wire.ipc import EngineConfig
from tests.backend.server.conftest import Serve
from tests.support.server.harness import CHAT, MODEL, ServerProcess, chat, fake_config, free_port, python_path

FOREIGN = ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "127.evil.example", "0.0.0.0", "192.168.1.5"]
ODD = [
    "evil.example/",
    "evil example",
    "evil.example\x80",
    "localhost@evil.example",
    "[::1",
    "[localhost",
    "localhost]",
    "",
]
OWN = ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:9", "127.0.0.2", "[::1]", "[::1]:8080"]


def key_file(folder: Path, text: str) -> Path:
    path = folder / "keys"
    path.write_text(text)
    return path


def test_a_key_file_has_a_key_a_line(tmp_path: Path) -> None:
    keys = KeyFile(key_file(tmp_path, "# ours\n\n one \ntwo\n  # indented\n"))
    assert [key for key in ("one", "two", "three", "", "# ours", "# indented", "ein\xe9") if keys.find(key)] == [
        "one",
        "two",
    ]


def test_a_key_beyond_ascii(tmp_path: Path) -> None:
    assert KeyFile(key_file(tmp_path, "clé")).find("clé".encode().decode("latin-1"))


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
def test_a_key_file_without_a_key(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidRequest, match="no key"):
        KeyFile(key_file(tmp_path, text))


def test_a_key_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        KeyFile(tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        KeyFile(tmp_path / "binary")


def test_a_key_file_is_read_again_when_it_is_written_or_replaced(tmp_path: Path) -> None:
    path = key_file(tmp_path, "first")
    keys = KeyFile(path)
    path.write_text("second!")
    assert keys.find("first") is None
    assert keys.find("second!")
    stamp = path.stat()
    other = tmp_path / "other"
    other.write_text("third!!")
    os.utime(other, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    other.replace(path)
    assert keys.find("second!") is None
    assert keys.find("third!!")


def test_a_key_file_that_turns_bad_keeps_the_keys(tmp_path: Path) -> None:
    path = key_file(tmp_path, "first")
    keys = KeyFile(path)
    path.write_bytes(b"\xff\xfe\x00 binary")
    assert keys.find("first")
    path.unlink()
    assert keys.find("first")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "127.evil.example", "example.org", ""])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_keys_on_tcp(serve: Serve, tmp_path: Path) -> None:
    path = key_file(tmp_path, "secret\nother\n")
    server = serve(host="127.0.0.1", port=free_port(), api_key_file=str(path))
    with server.tcp() as client:
        answer = client.post(CHAT, json=chat())
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert "secret" not in answer.text
        for header in ("Bearer wrong", "Bearer", "Basic secret", "secret", "Bearer secret2"):
            assert client.post(CHAT, json=chat(), headers={"Authorization": header}).status_code == 401, header
        for header in ("Bearer secret", "bearer  secret", "Bearer other"):
            assert client.post(CHAT, json=chat(), headers={"Authorization": header}).status_code == 200, header
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/status").status_code == 401
        assert client.get("/livez").status_code == 200
        with_key = {"Authorization": "Bearer secret", "Host": "my.server.example"}
        assert client.get("/v1/models", headers=with_key).status_code == 200
    _check_openai(server)
    path.write_text("changed")
    with server.openai_tcp("secret") as old, pytest.raises(openai.AuthenticationError):
        old.models.list()
    with server.openai_tcp("changed") as new:
        assert new.models.list().data[0].id == MODEL


def _check_openai(server: ServerProcess) -> None:
    with server.openai_tcp("wrong") as client, pytest.raises(openai.AuthenticationError) as caught:
        client.models.list()
    assert caught.value.code == "invalid_api_key"
    with server.openai_tcp("secret") as client:
        assert client.models.list().data[0].id == MODEL
    with server.openai("any") as client:
        assert client.models.list().data[0].id == MODEL


@pytest.mark.parametrize("host", FOREIGN)
def test_without_a_key_a_foreign_host_is_refused(shared: ServerProcess, host: str) -> None:
    with shared.tcp(headers={"Host": host}) as client:
        for answer in (client.get("/v1/models"), client.post(CHAT, json=chat())):
            assert answer.status_code == 403
            assert answer.json()["error"]["code"] == "forbidden_host"


@pytest.mark.parametrize("host", ODD)
def test_without_a_key_an_odd_host_is_refused(shared: ServerProcess, host: str) -> None:
    with shared.tcp(headers={b"Host": host.encode("latin-1")}) as client:
        assert client.get("/v1/models").status_code in (400, 403)


@pytest.mark.parametrize("host", OWN)
def test_without_a_key_this_machine_is_served(shared: ServerProcess, host: str) -> None:
    with shared.tcp(headers={"Host": host}) as client:
        assert client.get("/v1/models").status_code == 200


def test_on_the_socket_the_host_does_not_matter(shared: ServerProcess) -> None:
    with shared.http(headers={"Host": "anything.example"}) as client:
        assert client.get("/v1/models").status_code == 200


def run_server(config: ServerConfig) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llama_backend.server", msgspec.json.encode(config).decode()],
        capture_output=True,
        text=True,
        timeout=20,
        env=os.environ | {"PYTHONPATH": python_path()},
        check=False,
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org", "127.evil.example"])
def test_beyond_this_machine_a_key_is_needed(tmp_path: Path, host: str) -> None:
    config = fake_config(tmp_path, host=host, port=free_port())
    done = run_server(config)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert host in done.stderr
    assert "--api-key-file" in done.stderr
    assert not Path(str(config.socket)).exists()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"api_key_file": "/nowhere/keys"}, "/nowhere/keys"),
        ({"host": "127.0.0.1", "port": 99999}, "99999"),
        ({"host": "127.0.0.1", "port": -1}, "-1"),
        ({"host": "203.0.113.7", "port": 80, "api_key_file": "keys"}, "203.0.113.7:80"),
        ({"host": "no.such.host.invalid", "port": 80, "api_key_file": "keys"}, "no.such.host.invalid"),
        ({"socket": "/nowhere/s.sock"}, "/nowhere/s.sock"),
        ({"socket": "/tmp/" + "x" * 110}, "too long"),
    ],
)
def test_what_cannot_be_had_is_told_in_one_line(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    path = key_file(tmp_path, "secret")
    chosen: dict[str, Any] = {name: str(path) if value == "keys" else value for name, value in settings.items()}
    config = fake_config(tmp_path, **chosen)
    done = run_server(config)
    assert done.returncode == 2, done.stderr
    assert reason in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not Path(str(config.socket)).exists()


def test_a_socket_in_use_is_left_alone(shared: ServerProcess) -> None:
    assert shared.config.socket is not None
    done = run_server(ServerConfig(model=MODEL, engine=EngineConfig(path="x"), socket=shared.config.socket))
    assert done.returncode == 2
    assert "in use" in done.stderr
    assert shared.status().state == "ready"


def test_a_port_in_use_leaves_no_socket(shared: ServerProcess, tmp_path: Path) -> None:
    config = fake_config(tmp_path, host="127.0.0.1", port=shared.config.port)
    done = run_server(config)
    assert done.returncode == 2
    assert "in use" in done.stderr
    assert not Path(str(config.socket)).exists()


def test_a_stale_socket_is_replaced_and_private(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    server = serve()
    server.process.kill()
    server.process.wait()
    assert path.is_socket()
    assert path.stat().st_mode & 0o777 == 0o600
    again = serve()
    assert again.status().pid == again.pid
    with again.http() as client, pytest.raises(httpx2.HTTPStatusError):
        client.get("/nothing").raise_for_status()
