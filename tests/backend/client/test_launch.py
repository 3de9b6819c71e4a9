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
    place = RuntimeFiles(Path(sys.argv[1]), Path(sys.argv[2]))
    config = msgspec.json.decode(sys.argv[3], type=ServerConfig)
    time.sleep(max(0, float(sys.argv[4]) - time.time()))
    async with Client(ensure(place, config)) as client:
        print((await client.status()).pid)

asyncio.run(main())
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RuntimeFiles]:
    """A place whose backends end with the test."""
    monkeypatch.setenv("PYTHONPATH", python_path())
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    place = RuntimeFiles(folder, tmp_path / "backend.log")
    yield place
    for pid in backends(place):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    return fake_config(tmp_path, socket=None)


def backends(place: RuntimeFiles) -> list[int]:
    """Processes of servers at a place."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            line = path.read_bytes()
            if b"llama_backend.server" in line and os.fsencode(place.socket) in line and runs(int(path.parent.name)):
                found.append(int(path.parent.name))
    return found


async def status(address: Address) -> BackendStatus:
    async with Client(address) as client:
        return await client.status()


async def answer(address: Address, text: str) -> str:
    async with Client(address) as client:
        request = ChatRequest(messages=[ChatMessage("user", text)])
        return "".join([delta.text async for delta in client.chat(request)])


async def test_started_found_and_stopped(place: RuntimeFiles, config: ServerConfig) -> None:
    assert find(place) is None
    address = ensure(place, config)
    assert address == Address(socket=place.socket)
    assert await answer(address, "a b") == "a b"
    assert find(place) == address
    assert ensure(place, config) == address
    found = await status(address)
    assert backends(place) == [found.pid]
    assert found.log == str(place.log)
    assert "engine: ready" in place.log.read_text()
    assert place.socket.stat().st_mode & 0o777 == 0o600
    assert place.log.stat().st_mode & 0o777 == 0o600
    assert os.getsid(found.pid) == found.pid
    assert stop(place, found.pid)
    assert (find(place), place.socket.exists(), backends(place)) == (None, False, [])
    assert found.engine_pid is not None
    assert not runs(found.engine_pid)
    assert stop(place, found.pid)


async def test_requests_can_be_sent_before_the_server_is_up(place: RuntimeFiles, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    begin = monotonic()
    address = ensure(place, fake_config(tmp_path, FakeModel(gate=str(gate)), socket=None))
    assert monotonic() - begin < 0.3
    waiting = asyncio.create_task(answer(address, "a b"))
    assert (await status(address)).state == "loading"
    assert not waiting.done()
    gate.touch()
    assert await waiting == "a b"


@pytest.mark.parametrize("racers", [2, 8])
def test_those_who_start_at_the_same_moment_end_on_one_backend(
    place: RuntimeFiles, config: ServerConfig, tmp_path: Path, racers: int
) -> None:
    start = str(time() + 0.3 + 0.2 * racers)
    arguments = [str(place.folder), str(place.log), msgspec.json.encode(config).decode(), start]
    with ExitStack() as stack:
        command = [sys.executable, "-c", RACER, *arguments]
        found = [stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE)) for _ in range(racers)]
        pids = {process.communicate(timeout=30)[0].strip() for process in found}
    assert len(pids) == 1
    assert [str(pid).encode() for pid in backends(place)] == list(pids)


async def test_a_killed_backend_is_replaced(place: RuntimeFiles, config: ServerConfig) -> None:
    first = await status(ensure(place, config))
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: not runs(first.pid), what="the end")
    assert place.socket.is_socket()
    assert find(place) is None
    second = await status(ensure(place, config))
    assert second.pid != first.pid
    assert await answer(Address(socket=place.socket), "a b") == "a b"


async def test_an_idle_backend_ends_and_leaves_nothing(place: RuntimeFiles, tmp_path: Path) -> None:
    found = await status(ensure(place, fake_config(tmp_path, socket=None, idle_exit=0.3)))
    until(lambda: not runs(found.pid), what="the idle exit")
    assert not place.socket.exists()
    assert find(place) is None


async def test_requests_around_the_idle_exit_are_answered(place: RuntimeFiles, tmp_path: Path) -> None:
    config, rng, again = fake_config(tmp_path, socket=None, idle_exit=0.2), random.Random(1), 0
    for _ in range(5):
        address = ensure(place, config)
        try:
            assert await answer(address, "a b") == "a b"
        except Unreachable:
            again += 1
            assert await answer(ensure(place, config), "a b") == "a b"
        await asyncio.sleep(0.2 + rng.random() * 0.3)
    assert again < 5


async def test_a_draining_backend_makes_room_and_completes_its_answer(
    place: RuntimeFiles, config: ServerConfig
) -> None:
    address = ensure(place, config)
    async with Client(address) as client:
        stream = client.chat(ChatRequest(messages=[ChatMessage("user", "words=15 delay=0.1")]))
        texts = [(await anext(stream)).text, (await anext(stream)).text]
        first = await client.status()
        os.kill(first.pid, signal.SIGTERM)
        until(lambda: not place.socket.exists(), 2, "room")
        second = await status(ensure(place, config))
        assert second.pid != first.pid
        texts += [delta.text async for delta in stream]
    assert "".join(texts).endswith("w14")
    until(lambda: not runs(first.pid), what="the end")
    assert (await status(Address(socket=place.socket))).pid == second.pid


async def test_stop_says_when_a_backend_does_not_end(place: RuntimeFiles, config: ServerConfig) -> None:
    found = await status(ensure(place, config))
    os.kill(found.pid, signal.SIGSTOP)
    assert not stop(place, found.pid, 0.2)
    os.kill(found.pid, signal.SIGCONT)
    until(lambda: not runs(found.pid), what="the end")


def test_a_path_that_is_too_long(place: RuntimeFiles, config: ServerConfig) -> None:
    folder = place.folder / ("x" * 100)
    folder.mkdir(mode=0o700)
    with pytest.raises(Unreachable, match="too long") as caught:
        ensure(RuntimeFiles(folder, place.log), config)
    assert "LLAMA_CHAT_RUNTIME_DIR" in str(caught.value)


def test_a_folder_that_is_not_there(place: RuntimeFiles, config: ServerConfig) -> None:
    missing = place.folder / "missing"
    assert find(RuntimeFiles(missing, place.log)) is None
    with pytest.raises(Unreachable, match=r"missing.*No such file"):
        ensure(RuntimeFiles(missing, place.log), config)


def test_a_folder_that_takes_no_files(place: RuntimeFiles, config: ServerConfig) -> None:
    with pytest.raises(Unreachable, match="/proc"):
        ensure(RuntimeFiles(Path("/proc"), place.log), config)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable(place: RuntimeFiles, config: ServerConfig) -> None:
    place.folder.chmod(0o500)
    with pytest.raises(Unreachable, match="Permission denied"):
        ensure(place, config)


def test_a_log_that_cannot_be_written(place: RuntimeFiles, config: ServerConfig) -> None:
    (place.folder / "file").touch()
    with pytest.raises(Unreachable, match="cannot be started"):
        ensure(RuntimeFiles(place.folder, place.folder / "file" / "log"), config)
    assert not place.socket.exists()


def test_a_file_in_place_of_the_lock(place: RuntimeFiles, config: ServerConfig) -> None:
    place.lock.mkdir()
    with pytest.raises(Unreachable, match=r"backend\.lock"):
        ensure(place, config)


def test_a_backend_that_takes_no_more_connections_is_not_replaced(place: RuntimeFiles, config: ServerConfig) -> None:
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as stack:
        listener.bind(str(place.socket))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(str(place.socket))
        inode = place.socket.stat().st_ino
        assert find(place) == Address(socket=place.socket)
        ensure(place, config)
        assert place.socket.stat().st_ino == inode
    assert backends(place) == []


async def test_a_large_log_is_set_aside(place: RuntimeFiles, config: ServerConfig) -> None:
    place.log.write_bytes(b"x" * (1024 * 1024 + 1))
    await status(ensure(place, config))
    assert place.log.with_suffix(".old.log").stat().st_size > 1024 * 1024
    until(lambda: "engine" in place.log.read_text(), what="the new log")
    assert place.log.stat().st_size < 100_000


async def test_a_small_log_goes_on(place: RuntimeFiles, config: ServerConfig) -> None:
    place.log.write_text("before\n")
    await status(ensure(place, config))
    assert place.log.read_text().startswith("before\n")
    assert not place.log.with_suffix(".old.log").exists()


def test_a_log_that_is_full_keeps_nobody_from_an_answer(place: RuntimeFiles, config: ServerConfig) -> None:
    place.log.write_bytes(b"x" * LIMIT)
    arguments = [str(place.folder), str(place.log), msgspec.json.encode(config).decode(), "0"]
    done = subprocess.run(
        [sys.executable, "-c", RACER, *arguments],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT)),
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    for text in ("a b", "c d"):
        assert asyncio.run(answer(Address(socket=place.socket), text)) == text
    assert place.log.stat().st_size == LIMIT
    assert stop(place, int(done.stdout))
