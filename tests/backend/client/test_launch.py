"""The backend of a user: started once, found again, stopped; real processes on a fake engine."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic, time

import msgspec
import pytest

from llama_backend.client.http_client import Address, Client
from llama_backend.client.launch import RuntimeFiles, ensure, find, stop
from llama_backend.errors import Unreachable
from llama_backend.server_config import ServerConfig
from llama_backend.wire.api import ChatMessage, ChatRequest
from llama_backend.wire.status import BackendStatus
from tests.support.server.fake_engine import FakeModel
from tests.support.server.harness import fake_config, python_path, runs
from tests.support.wait import until

LIMIT = 256 * 1024
"""Bytes that no file may go beyond."""

RACER = """
import asyncio, sys, time
from pathlib import Path
import msgspec
from llama_backend.client.http_client import Client
from llama_backend.server_config import ServerConfig
from llama_backend.client.launch import RuntimeFiles, ensure

async def main():
    files = RuntimeFiles(Path(sys.argv[1]), Path(sys.argv[2]))
    config = msgspec.json.decode(sys.argv[3], type=ServerConfig)
    time.sleep(max(0, float(sys.argv[4]) - time.time()))
    async with Client(ensure(files, config)) as client:
        print((await client.status()).pid)

asyncio.run(main())
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RuntimeFiles]:
    """The files of a backend that ends with the test."""
    monkeypatch.setenv("PYTHONPATH", python_path())
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    files = RuntimeFiles(folder, tmp_path / "backend.log")
    yield files
    for pid in backends(files):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    return fake_config(tmp_path, socket=None)


def backends(files: RuntimeFiles) -> list[int]:
    """Processes of servers on the socket."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            line = path.read_bytes()
            if b"llama_backend.server" in line and os.fsencode(files.socket) in line and runs(int(path.parent.name)):
                found.append(int(path.parent.name))
    return found


async def status(address: Address) -> BackendStatus:
    async with Client(address) as client:
        return await client.status()


async def answer(address: Address, text: str) -> str:
    async with Client(address) as client:
        request = ChatRequest(messages=[ChatMessage("user", text)])
        return "".join([delta.text async for delta in client.chat(request)])


async def test_started_found_and_stopped(files: RuntimeFiles, config: ServerConfig) -> None:
    assert find(files) is None
    address = ensure(files, config)
    assert address == Address(socket=files.socket)
    assert await answer(address, "a b") == "a b"
    assert find(files) == address
    assert ensure(files, config) == address
    found = await status(address)
    assert backends(files) == [found.pid]
    assert found.log == str(files.log)
    assert "engine: ready" in files.log.read_text()
    assert files.socket.stat().st_mode & 0o777 == 0o600
    assert files.log.stat().st_mode & 0o777 == 0o600
    assert os.getsid(found.pid) == found.pid
    assert stop(files, found.pid)
    assert (find(files), files.socket.exists(), backends(files)) == (None, False, [])
    assert found.engine_pid is not None
    assert not runs(found.engine_pid)
    assert stop(files, found.pid)


async def test_requests_can_be_sent_before_the_server_is_up(files: RuntimeFiles, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    begin = monotonic()
    address = ensure(files, fake_config(tmp_path, FakeModel(gate=str(gate)), socket=None))
    assert monotonic() - begin < 0.3
    waiting = asyncio.create_task(answer(address, "a b"))
    assert (await status(address)).state == "loading"
    assert not waiting.done()
    gate.touch()
    assert await waiting == "a b"


@pytest.mark.parametrize("racers", [2, 8])
def test_those_who_start_at_the_same_moment_end_on_one_backend(
    files: RuntimeFiles, config: ServerConfig, tmp_path: Path, racers: int
) -> None:
    start = str(time() + 0.3 + 0.2 * racers)
    arguments = [str(files.folder), str(files.log), msgspec.json.encode(config).decode(), start]
    with ExitStack() as stack:
        command = [sys.executable, "-c", RACER, *arguments]
        found = [stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE)) for _ in range(racers)]
        pids = {process.communicate(timeout=30)[0].strip() for process in found}
    assert len(pids) == 1
    assert [str(pid).encode() for pid in backends(files)] == list(pids)


async def test_a_killed_backend_is_replaced(files: RuntimeFiles, config: ServerConfig) -> None:
    first = await status(ensure(files, config))
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: not runs(first.pid), what="the end")
    assert files.socket.is_socket()
    assert find(files) is None
    second = await status(ensure(files, config))
    assert second.pid != first.pid
    assert await answer(Address(socket=files.socket), "a b") == "a b"


async def test_an_idle_backend_ends_and_leaves_nothing(files: RuntimeFiles, tmp_path: Path) -> None:
    found = await status(ensure(files, fake_config(tmp_path, socket=None, idle_exit=0.3)))
    until(lambda: not runs(found.pid), what="the idle exit")
    assert not files.socket.exists()
    assert find(files) is None


async def test_requests_around_the_idle_exit_are_answered(files: RuntimeFiles, tmp_path: Path) -> None:
    config, rng, again = fake_config(tmp_path, socket=None, idle_exit=0.2), random.Random(1), 0
    for _ in range(5):
        address = ensure(files, config)
        try:
            assert await answer(address, "a b") == "a b"
        except Unreachable:
            again += 1
            assert await answer(ensure(files, config), "a b") == "a b"
        await asyncio.sleep(0.2 + rng.random() * 0.3)
    assert again < 5


async def test_a_draining_backend_makes_room_and_completes_its_answer(
    files: RuntimeFiles, config: ServerConfig
) -> None:
    address = ensure(files, config)
    async with Client(address) as client:
        stream = client.chat(ChatRequest(messages=[ChatMessage("user", "words=15 delay=0.1")]))
        texts = [(await anext(stream)).text, (await anext(stream)).text]
        first = await client.status()
        os.kill(first.pid, signal.SIGTERM)
        until(lambda: not files.socket.exists(), 2, "room")
        second = await status(ensure(files, config))
        assert second.pid != first.pid
        texts += [delta.text async for delta in stream]
    assert "".join(texts).endswith("w14")
    until(lambda: not runs(first.pid), what="the end")
    assert (await status(Address(socket=files.socket))).pid == second.pid


async def test_stop_says_when_a_backend_does_not_end(files: RuntimeFiles, config: ServerConfig) -> None:
    found = await status(ensure(files, config))
    os.kill(found.pid, signal.SIGSTOP)
    assert not stop(files, found.pid, 0.2)
    os.kill(found.pid, signal.SIGCONT)
    until(lambda: not runs(found.pid), what="the end")


def test_a_path_that_is_too_long(files: RuntimeFiles, config: ServerConfig) -> None:
    folder = files.folder / ("x" * 100)
    folder.mkdir(mode=0o700)
    with pytest.raises(Unreachable, match="too long") as caught:
        ensure(RuntimeFiles(folder, files.log), config)
    assert "LLAMA_CHAT_RUNTIME_DIR" in str(caught.value)


def test_a_folder_that_is_not_there(files: RuntimeFiles, config: ServerConfig) -> None:
    missing = files.folder / "missing"
    assert find(RuntimeFiles(missing, files.log)) is None
    with pytest.raises(Unreachable, match=r"missing.*No such file"):
        ensure(RuntimeFiles(missing, files.log), config)


def test_a_folder_that_takes_no_files(files: RuntimeFiles, config: ServerConfig) -> None:
    with pytest.raises(Unreachable, match="/proc"):
        ensure(RuntimeFiles(Path("/proc"), files.log), config)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable(files: RuntimeFiles, config: ServerConfig) -> None:
    files.folder.chmod(0o500)
    with pytest.raises(Unreachable, match="Permission denied"):
        ensure(files, config)


def test_a_log_that_cannot_be_written(files: RuntimeFiles, config: ServerConfig) -> None:
    (files.folder / "file").touch()
    with pytest.raises(Unreachable, match="cannot be started"):
        ensure(RuntimeFiles(files.folder, files.folder / "file" / "log"), config)
    assert not files.socket.exists()


def test_a_file_in_place_of_the_lock(files: RuntimeFiles, config: ServerConfig) -> None:
    files.lock.mkdir()
    with pytest.raises(Unreachable, match=r"backend\.lock"):
        ensure(files, config)


def test_a_backend_that_takes_no_more_connections_is_not_replaced(files: RuntimeFiles, config: ServerConfig) -> None:
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as stack:
        listener.bind(str(files.socket))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(str(files.socket))
        inode = files.socket.stat().st_ino
        assert find(files) == Address(socket=files.socket)
        ensure(files, config)
        assert files.socket.stat().st_ino == inode
    assert backends(files) == []


async def test_a_large_log_is_set_aside(files: RuntimeFiles, config: ServerConfig) -> None:
    files.log.write_bytes(b"x" * (1024 * 1024 + 1))
    await status(ensure(files, config))
    assert files.log.with_suffix(".old.log").stat().st_size > 1024 * 1024
    until(lambda: "engine" in files.log.read_text(), what="the new log")
    assert files.log.stat().st_size < 100_000


async def test_a_small_log_goes_on(files: RuntimeFiles, config: ServerConfig) -> None:
    files.log.write_text("before\n")
    await status(ensure(files, config))
    assert files.log.read_text().startswith("before\n")
    assert not files.log.with_suffix(".old.log").exists()


def test_a_log_that_is_full_keeps_nobody_from_an_answer(files: RuntimeFiles, config: ServerConfig) -> None:
    files.log.write_bytes(b"x" * LIMIT)
    arguments = [str(files.folder), str(files.log), msgspec.json.encode(config).decode(), "0"]
    done = subprocess.run(
        [sys.executable, "-c", RACER, *arguments],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT)),
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    for text in ("a b", "c d"):
        assert asyncio.run(answer(Address(socket=files.socket), text)) == text
    assert files.log.stat().st_size == LIMIT
    assert stop(files, int(done.stdout))
