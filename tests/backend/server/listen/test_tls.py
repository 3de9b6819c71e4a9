"""TLS on the TCP port: with its own files, which may change, and never on the Unix socket."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from llama_backend.client.http_client import Address, Client
from llama_backend.errors import InvalidRequest, Unreachable
from llama_backend.server.listen.tls import Certificate
from llama_backend.server.main import run
from llama_backend.server.secret_file import LARGEST
from llama_backend.wire.api import ChatMessage, ChatRequest
from tests.backend.server.conftest import Serve
from tests.support.server.harness import fake_config, free_port

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")


def make_certificate(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    """A certificate that vouches for itself, and its key."""
    certificate, key = folder / "tls.crt", folder / "tls.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-nodes", "-days", "2"]
    names = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    return certificate, key


def peer_name(port: int, trusted: Path) -> str:
    """The name in the certificate that the server shows."""
    context = ssl.create_default_context(cafile=str(trusted))
    context.check_hostname = False
    with httpx2.Client(verify=context) as client, client.stream("GET", f"https://127.0.0.1:{port}/livez") as answer:
        stream = answer.extensions["network_stream"]
        subject = stream.get_extra_info("ssl_object").getpeercert()["subject"]
    return str(dict(pair for parts in subject for pair in parts)["commonName"])


async def test_a_client_speaks_https(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = make_certificate(tmp_path)
    (tmp_path / "keys").write_text("a-key\n")
    port = free_port()
    tls = {"tls_cert": str(certificate), "tls_key": str(key), "api_key_file": str(tmp_path / "keys")}
    server = serve(host="127.0.0.1", port=port, **tls)
    assert server.status().state == "ready"
    with server.tcp() as plain, pytest.raises(httpx2.TransportError):
        plain.get("/livez")
    request = ChatRequest(messages=[ChatMessage("user", "a b")])
    async with Client(Address(url=f"https://127.0.0.1:{port}"), "a-key") as client:
        with pytest.raises(Unreachable, match=r"[Cc]ertificate|CERTIFICATE"):
            await client.status()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with Client(Address(url=f"https://127.0.0.1:{port}"), "a-key") as client:
        assert "".join([delta.text async for delta in client.chat(request)]) == "a b"
    server.signal(signal.SIGTERM)
    assert server.process.wait(10) == 0


def test_a_new_certificate_is_taken(serve: Serve, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "first")
    port = free_port()
    serve(host="127.0.0.1", port=port, tls_cert=str(certificate), tls_key=str(key))
    assert peer_name(port, certificate) == "first"
    (tmp_path / "new").mkdir()
    for new, old in zip(make_certificate(tmp_path / "new", "second"), (certificate, key), strict=True):
        new.replace(old)
    both = tmp_path / "both"
    both.write_text(certificate.read_text())
    names = []
    for _ in range(2):
        try:
            names.append(peer_name(port, both))
        except httpx2.ConnectError:
            names.append("first")
    assert names[1] == "second"


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    with pytest.raises(InvalidRequest, match="No such file"):
        Certificate(certificate, tmp_path / "none")
    with pytest.raises(InvalidRequest, match="cannot be used"):
        Certificate(key, key)


def test_a_half_of_a_new_pair_changes_nothing(serve: Serve, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "first")
    port = free_port()
    server = serve(host="127.0.0.1", port=port, tls_cert=str(certificate), tls_key=str(key))
    trusted = tmp_path / "trusted"
    shutil.copy(certificate, trusted)
    (tmp_path / "new").mkdir()
    make_certificate(tmp_path / "new", "second")[0].replace(certificate)
    assert [peer_name(port, trusted) for _ in range(3)] == ["first"] * 3
    assert server.log.read_text().count("cannot be used") == 1


def test_files_that_are_none(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    large.write_bytes(b"#" * (LARGEST + 1))
    for file, reason in (
        (pipe, "not a regular file"),
        (tmp_path, "Is a directory|not a regular file"),
        (large, "more than"),
    ):
        with pytest.raises(InvalidRequest, match=reason):
            Certificate(certificate, file)
        with pytest.raises(InvalidRequest, match=reason):
            Certificate(file, key)


def test_nobody_is_asked_for_a_password(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    secret = tmp_path / "secret"
    command = ["openssl", "pkey", "-in", str(key), "-aes256", "-passout", "pass:x", "-out", str(secret)]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(InvalidRequest, match="the key is encrypted"):
        Certificate(certificate, secret)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, 0), (0o640, 0), (0o644, 1), (0o660, 1)])
def test_a_private_key_that_others_can_read_is_pointed_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: int
) -> None:
    certificate, key = make_certificate(tmp_path)
    key.chmod(mode)
    Certificate(certificate, key)
    assert caplog.text.count(f"{key} holds a private key") == warned


def test_what_is_no_tls_leaves_nothing_in_the_log(serve: Serve, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    port = free_port()
    server = serve(host="127.0.0.1", port=port, tls_cert=str(certificate), tls_key=str(key))
    size = server.log.stat().st_size
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\0" * 1000, b""):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock, suppress(OSError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(1000):
                pass
    assert peer_name(port, certificate) == "localhost"
    assert server.log.read_bytes()[size:] == b""


def test_half_of_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="--tls-key"):
        run(fake_config(tmp_path, host="127.0.0.1", tls_cert="/x"))


def test_tls_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="keys are needed"):
        run(fake_config(tmp_path, host="0.0.0.0", tls_cert="/x", tls_key="/y"))
