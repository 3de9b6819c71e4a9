"""TLS on the TCP port: with its own files, which may change, and never on the Unix socket."""

from __future__ import annotations

import shutil
import signal
import ssl
import subprocess
from pathlib import Path

import httpx2
import pytest

from llama_backend.api import ChatMessage, ChatRequest
from llama_backend.client import Address, Client
from llama_backend.errors import InvalidRequest, Unreachable
from llama_backend.server.main import run
from llama_backend.server.tls import Certificate
from tests.server.conftest import Serve
from tests.server.harness import fake_config, free_port

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


def test_half_of_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="--tls-key"):
        run(fake_config(tmp_path, host="127.0.0.1", tls_cert="/x"))


def test_tls_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no key"):
        run(fake_config(tmp_path, host="0.0.0.0", tls_cert="/x", tls_key="/y"))
