"""`python -m llama_backend.engine` over a socket pair, as the server starts it."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llama_backend.engine.llama.binding import lib
from llama_backend.engine.messages.channel import Channel
from llama_backend.wire.api import ChatMessage, SamplingParams
from llama_backend.wire.ipc import (
    Accepted,
    Cancel,
    Count,
    Counted,
    EngineConfig,
    Failed,
    Loading,
    Ready,
    Refused,
    StepDone,
    Stop,
    Submit,
    frame,
)
from tests.support.engine.engine_process import SECONDS, EngineProcess
from tests.support.gguf_files import gguf
from tests.support.wait import until

HELLO = [ChatMessage("user", "Count from 1 to 100, with a comma between the numbers.")]
GREEDY = SamplingParams(temperature=0, max_tokens=12)

Start = Callable[..., EngineProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    started = []

    def start_engine(path: Path, **config: Any) -> EngineProcess:
        started.append(EngineProcess(EngineConfig(path=str(path), **config)))
        return started[-1]

    yield start_engine
    for engine in started:
        engine.close()


@pytest.fixture(scope="module")
def engine(demo_model: Path) -> Iterator[EngineProcess]:
    """One engine that answers several tests; they leave it idle."""
    engine = EngineProcess(EngineConfig(path=str(demo_model), context=256, slots=2, threads=2))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def ready(engine: EngineProcess) -> Ready:
    loading = []
    for event in engine.events():
        if isinstance(event, Ready):
            break
        loading.append(event)
    assert all(isinstance(each, Loading) and 0 <= each.progress <= 1 for each in loading)
    assert isinstance(event, Ready)
    return event


def test_ready_says_what_was_loaded(ready: Ready) -> None:
    assert (ready.context, ready.context_trained, ready.slots, ready.threads) == (256, 8192, 2, 2)
    assert "Q4_1" in ready.description
    assert ready.parameters == pytest.approx(134.5e6, rel=0.01)
    assert ready.size == pytest.approx(91e6, rel=0.1)
    assert not ready.kv_unified


@pytest.mark.usefixtures("ready")
def test_a_request_is_accepted_then_answered_step_by_step(engine: EngineProcess) -> None:
    engine.send(Submit(id=1, sampling=GREEDY, messages=HELLO))
    first = next(engine.events())
    assert isinstance(first, Accepted)
    text, last = engine.answer(1)
    assert text.startswith("1, 2, 3")
    assert last.finish_reason == "length"
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (first.prompt_tokens, 12)


@pytest.mark.usefixtures("ready")
def test_statistics_are_there_when_the_work_is_done_and_step_times_add_up(engine: EngineProcess) -> None:
    engine.send(Submit(id=2, sampling=GREEDY, prompt="Once upon a time"))
    done = engine.wait_for(StepDone, lambda event: any(output.finish_reason for output in event.outputs))
    assert (done.running, done.waiting) == (0, 0)
    stats = engine.stats
    assert stats is not None
    times = stats.times
    assert times.steps >= 12
    assert min(times.schedule, times.decode, times.sample, times.deliver) > 0
    assert times.total == pytest.approx(times.schedule + times.decode + times.sample + times.deliver)
    assert stats.prompt_tokens >= 4
    assert stats.generated_tokens >= 12
    assert 0 < stats.kv_used <= stats.kv_cells
    assert stats.kv_busy == 0


@pytest.mark.usefixtures("ready")
def test_two_requests_are_answered_at_the_same_time(engine: EngineProcess) -> None:
    engine.send(*[Submit(id=number, sampling=GREEDY, messages=HELLO) for number in (3, 4)])
    most = 0
    finished: dict[int, str] = {}
    for event in engine.events():
        if isinstance(event, StepDone):
            most = max(most, event.running)
            finished |= {output.id: output.finish_reason for output in event.outputs if output.finish_reason}
        if len(finished) == 2:
            break
    assert most == 2


@pytest.mark.usefixtures("ready")
def test_count_computes_nothing(engine: EngineProcess) -> None:
    engine.send(Count(id=5, messages=HELLO), Count(id=6, prompt="<|im_end|>", return_tokens=True))
    counted, plain = engine.wait_for(Counted), engine.wait_for(Counted)
    assert (counted.id, counted.context, counted.tokens) == (5, 256, None)
    assert counted.count > 20
    assert plain.tokens is not None
    assert plain.count == len(plain.tokens) > 1
    assert 2 not in plain.tokens
    engine.send(Submit(id=7, sampling=GREEDY, messages=HELLO))
    assert engine.wait_for(Accepted).prompt_tokens == counted.count
    engine.answer(7)


@pytest.mark.usefixtures("ready")
def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(engine: EngineProcess) -> None:
    engine.send(Submit(id=8, sampling=GREEDY, prompt=[9] * 256))
    refused = engine.wait_for(Refused)
    assert (refused.id, refused.code) == (8, "context_length_exceeded")
    assert (refused.prompt_tokens, refused.context) == (256, 256)
    engine.send(Submit(id=9, sampling=GREEDY, prompt=[9] * 255))
    assert engine.wait_for(Accepted).prompt_tokens == 255
    assert engine.answer(9)[1].finish_reason == "length"


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize(
    ("prompt", "reason"), [("", "it has no tokens"), ([], "it has no tokens"), ([49152], "49152 is not a token id")]
)
def test_prompts_that_are_none_are_refused(engine: EngineProcess, prompt: str | list[int], reason: str) -> None:
    engine.send(Submit(id=10, sampling=GREEDY, prompt=prompt))
    refused = engine.wait_for(Refused)
    assert reason in refused.message
    assert refused.param == "prompt"


@pytest.mark.usefixtures("ready")
def test_cancelling_ends_an_answer(engine: EngineProcess) -> None:
    engine.send(Submit(id=11, sampling=SamplingParams(temperature=0, ignore_eos=True), messages=HELLO))
    engine.wait_for(StepDone, lambda event: bool(event.outputs))
    engine.send(Cancel(11), Cancel(999))
    assert engine.answer(11)[1].finish_reason == "cancelled"


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_group_is_the_servers_business(engine: EngineProcess, number: signal.Signals) -> None:
    engine.process.send_signal(number)
    engine.send(Submit(id=12, sampling=GREEDY, messages=HELLO))
    assert engine.answer(12)[1].finish_reason == "length"


@pytest.mark.usefixtures("ready")
def test_an_idle_engine_is_silent_and_takes_no_time(engine: EngineProcess) -> None:
    engine.send(Submit(id=13, sampling=GREEDY, messages=HELLO))
    engine.answer(13)
    before = cpu_seconds(engine.process.pid)
    assert select.select([engine.sock], [], [], 0.5)[0] == []
    assert cpu_seconds(engine.process.pid) - before < 0.1


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_stop_ends_it_with_nothing_on_standard_output(start: Start, demo_model: Path) -> None:
    engine = start(demo_model, context=256)
    engine.send(Submit(id=1, sampling=GREEDY, messages=HELLO))
    engine.answer(1)
    engine.send(Stop())
    assert engine.finish()[:2] == (0, b"")


def test_the_end_of_the_socket_ends_it_even_in_the_middle_of_an_answer(start: Start, demo_model: Path) -> None:
    engine = start(demo_model, context=2048)
    engine.send(Submit(id=1, sampling=SamplingParams(ignore_eos=True), messages=HELLO))
    engine.wait_for(StepDone)
    engine.sock.shutdown(socket.SHUT_RDWR)
    engine.process.wait(SECONDS)


@pytest.mark.parametrize("stopped", [False, True])
def test_it_ends_when_its_parent_is_killed(demo_model: Path, stopped: bool) -> None:
    """The parent is another process that holds the only other end of the socket."""
    config = msgspec.json.encode(EngineConfig(path=str(demo_model), context=256)).decode()
    program = (
        "import socket, subprocess, sys, time\n"
        "ours, theirs = socket.socketpair()\n"
        f"engine = subprocess.Popen([sys.executable, '-m', 'llama_backend.engine', {config!r}, str(theirs.fileno())],"
        " pass_fds=[theirs.fileno()])\n"
        "theirs.close()\n"
        "ours.recv(1)\n"
        "print(engine.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    parent.kill()
    parent.communicate()
    until(lambda: has_ended(pid), SECONDS, "the end of the engine")


def has_ended(pid: int) -> bool:
    """Whether a process has ended; a zombie that nobody waits for counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def beginning(size: int) -> Callable[[Path], bytes]:
    """The first bytes of the demo model."""

    def read(demo: Path) -> bytes:
        with demo.open("rb") as file:
            return file.read(size)

    return read


def only(data: bytes) -> Callable[[Path], bytes]:
    return lambda demo: data


BAD_FILES = {
    "no gguf": (only(b"not a model at all"), "is not a GGUF file"),
    "empty": (only(b""), "is too short for a GGUF file"),
    "cut off in a tensor": (beginning(40_000_000), "not within the file bounds, model is corrupted or incomplete"),
    "cut off in the header": (beginning(1000), "the GGUF header is damaged or cut off"),
    "architecture": (only(gguf({"general.architecture": "nosuch"})), "unknown model architecture: 'nosuch'"),
    "no architecture": (only(gguf({"general.name": "x"})), "unknown model architecture: ''"),
    "no parameters": (only(gguf({"general.architecture": "llama"})), "key not found in model: llama.context_length"),
}


@pytest.mark.parametrize("kind", list(BAD_FILES))
def test_files_that_are_no_model_fail_with_a_reason_in_one_line(
    start: Start, tmp_path: Path, demo_model: Path, kind: str
) -> None:
    make, reason = BAD_FILES[kind]
    path = tmp_path / "bad.gguf"
    path.write_bytes(make(demo_model))
    engine = start(path)
    failed = engine.wait_for(Failed)
    assert failed.reason.startswith(f"{path}: ")
    assert reason in failed.reason
    assert "\n" not in failed.reason
    code, out, err = engine.finish()
    assert (code, out) == (1, b"")
    assert "Traceback" not in err


def test_a_file_that_is_not_there(start: Start, tmp_path: Path) -> None:
    failed = start(tmp_path / "nowhere.gguf").wait_for(Failed)
    assert "No such file" in failed.reason


@pytest.mark.parametrize("asked", [{"gpu_layers": 5}, {"gpu_layers": -1}, {"main_gpu": 0}, {"tensor_split": [1.0]}])
def test_a_gpu_that_is_not_there_is_no_reason_to_compute_without(
    start: Start, demo_model: Path, asked: dict[str, Any]
) -> None:
    if lib.llama_supports_gpu_offload():
        pytest.skip("there is a GPU")
    engine = start(demo_model, **asked)
    failed = engine.wait_for(Failed)
    assert "a GPU was asked for" in failed.reason
    assert failed.code == "device_unavailable"
    assert engine.finish()[0] == 1


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
def test_types_of_keys_and_values(start: Start, demo_model: Path, kv_type: str) -> None:
    engine = start(demo_model, context=256, kv_type=kv_type)
    tuning = engine.wait_for(Ready).tuning
    assert tuning is not None
    assert (tuning.kv_type, tuning.kv_cells, tuning.flash_attention) == (kv_type, 256, True)
    assert tuning.kv_bytes == 256 * {"f16": 23040, "q8_0": 12240, "q4_0": 6480}[kv_type]
    engine.send(Submit(id=1, sampling=GREEDY, prompt="The capital of France is"))
    assert engine.answer(1)[0].startswith(" Paris")


def test_what_was_set_by_hand_is_kept(start: Start, demo_model: Path) -> None:
    by_hand = {"threads": 1, "flash_attention": False, "batch": 64, "ubatch": 32, "kv_unified": False, "gpu_layers": 0}
    tuning = start(demo_model, context=256, slots=2, **by_hand).wait_for(Ready).tuning
    assert tuning is not None
    assert (tuning.threads, tuning.threads_fixed, tuning.flash_attention) == (1, True, False)
    assert (tuning.batch, tuning.ubatch, tuning.kv_unified, tuning.kv_cells) == (64, 32, False, 512)
    assert (tuning.gpu_layers, tuning.layers, tuning.gpu_layers_fixed, tuning.gpus) == (0, 31, True, [])


def test_frames_are_read_whole_and_the_end_is_none() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Channel(theirs)
        ours.sendall(frame(Cancel(7)) + frame(Stop())[:3])
        ours.shutdown(socket.SHUT_WR)
        assert channel.receive() == Cancel(7)
        assert channel.receive() is None
        channel.close()
