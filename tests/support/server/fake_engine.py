"""A stand-in for the engine's process: it speaks the same frames, needs no model, and does what a prompt says.

A prompt is echoed word by word. Settings in it change that: `words=5` answers with five words, `delay=0.1` waits
that many seconds before each, `die=2` ends the process by SIGKILL before the third, and `error` fails in the end.
With `blame` beside `die` it is as if llama.cpp had ended on the request's grammar.
With `unreadable` it ends while it reads the prompt, by SIGABRT, or by SIGKILL with `killed` beside; with `endless` it
never ends reading. With `gate=/a/path` the last word waits until there is a file of that name. With `send=HEX` the
engine sends these bytes instead of an answer.
The prompt `grammar` is answered with the grammar that came with it.
The model's file is JSON and says how the loading goes, see FakeModel.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic, sleep

import msgspec

from llama_backend.crash_notes import CrashNotes
from llama_backend.wire.api import FinishReason, Timings, Usage
from llama_backend.wire.ipc import (
    HEADER,
    Accepted,
    Cancel,
    ClearKVStates,
    Command,
    Count,
    Counted,
    Embed,
    Embedded,
    EngineConfig,
    EngineStats,
    Event,
    Failed,
    Loading,
    Ready,
    Refused,
    SequenceOutput,
    StepDone,
    Stop,
    StoreChanged,
    Submit,
    TokenLogprob,
    decode_command,
    frame,
)
from llama_backend.wire.status import KVStoreStatus, StepTimes

MODULE = "tests.support.server.fake_engine"
CONTEXT = 256
SLOTS = 2


class FakeModel(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a fake model's file."""

    load: float = 0.0
    """Seconds that it takes to load."""
    gate: str | None = None
    """A file without which it does not get loaded."""
    fail: str | None = None
    fail_code: str = "model_unreadable"
    """The reason why it cannot be loaded."""
    die_loading: bool = False
    die_ready: float | None = None
    """Seconds after which the process dies, once it is ready."""


@dataclass
class Job:
    """One request."""

    id: int
    words: list[str]
    n_prompt: int
    delay: float
    die_at: int
    reason: FinishReason
    top_logprobs: int | None = None
    blamed: bool = False
    gate: str | None = None
    due: float = 0.0
    done: int = 0
    queued: float = field(default_factory=monotonic)

    @property
    def usage(self) -> Usage:
        return Usage(self.n_prompt, self.done, self.n_prompt + self.done, {"cached_tokens": 0})

    def output(self, text: str, reason: FinishReason | None) -> SequenceOutput:
        logprobs = None if self.top_logprobs is None else self._logprobs(text, self.top_logprobs)
        if reason is None:
            return SequenceOutput(self.id, text, logprobs=logprobs)
        message = "the fake was told to fail" if reason == "error" else None
        return SequenceOutput(self.id, text, reason, self.usage, Timings(predicted_n=self.done), message, logprobs)

    @staticmethod
    def _logprobs(text: str, top: int) -> list[TokenLogprob]:
        """The first byte of a text is a token, and what follows another."""
        data = text.encode()
        others = [(b"other%d" % index, -1.0 - index) for index in range(top)]
        return [TokenLogprob(token, -0.5, others) for token in (data[:1], data[1:]) if token]


def job_of(command: Submit) -> Job:
    """The job that the words of a prompt ask for."""
    words = words_of(command)
    if words == ["grammar"]:
        words = [command.sampling.grammar or "none"]
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    answer = [f"w{number}" for number in range(int(settings["words"]))] if "words" in settings else words
    limit = command.sampling.limit
    reason: FinishReason = "error" if "error" in words else "stop"
    if limit is not None and limit < len(answer):
        answer, reason = answer[:limit], "length"
    spaced = [word if number == 0 else f" {word}" for number, word in enumerate(answer)]
    die_at = int(settings.get("die", -1))
    delay = float(settings.get("delay", 0))
    blamed, gate = "blame" in words, settings.get("gate")
    return Job(command.id, spaced, len(words), delay, die_at, reason, command.top_logprobs, blamed, gate)


def words_of(command: Submit | Count) -> list[str]:
    """What stands for the tokens of a prompt; an answer echoes the last message only."""
    if command.messages is not None:
        text = command.messages[-1].text if command.messages else ""
        return text.split(" ")
    prompt = command.prompt or ""
    return prompt.split(" ") if isinstance(prompt, str) else [f"t{token}" for token in prompt]


class FakeEngine:
    """Requests in slots and in a queue, as the real engine has them."""

    def __init__(self, sock: socket.socket, config: EngineConfig, notes: CrashNotes) -> None:
        self._notes = notes
        self._sock = sock
        self._buffer = b""
        self._slots = config.slots or SLOTS
        self._context = config.context or CONTEXT
        self._running: list[Job] = []
        self._waiting: deque[Job] = deque()
        self._outputs: list[SequenceOutput] = []
        self._told = (0, 0)
        self._steps = self._prompt_tokens = self._generated_tokens = 0

    def send(self, event: Event) -> None:
        self._sock.sendall(frame(event))

    def ready(self) -> Ready:
        return Ready(
            context=self._context,
            context_trained=2 * self._context,
            slots=self._slots,
            threads=1,
            gpu_layers=0,
            kv_unified=True,
            description="fake",
            parameters=1,
            size=1,
        )

    def run(self, until: float | None) -> None:
        """Answers until the other side goes away, or dies at a moment."""
        while True:
            if until is not None and monotonic() > until:
                die()
            pause = min([job.due for job in self._running] + [monotonic() + 0.05]) - monotonic()
            if select.select([self._sock], [], [], max(pause, 0))[0] and not self._read():
                return
            self._step()

    def _read(self) -> bool:
        data = self._sock.recv(1 << 16)
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            (size,) = HEADER.unpack_from(self._buffer)
            if len(self._buffer) < HEADER.size + size:
                break
            payload, self._buffer = self._buffer[HEADER.size : HEADER.size + size], self._buffer[HEADER.size + size :]
            self._take(decode_command(payload))
        return bool(data)

    def _take(self, command: Command) -> None:
        match command:
            case Submit():
                self._submit(command)
            case Count():
                self._pretend_to_read(command)
                tokens = list(range(len(words_of(command)))) if command.return_tokens else None
                count = len(words_of(command))
                self.send(Counted(id=command.id, count=count, context=self._context, tokens=tokens))
            case Embed():
                self._embed(command)
            case ClearKVStates():
                self.send(StoreChanged(KVStoreStatus(states=0, hits=1)))
            case Cancel(number):
                self._cancel(number)
            case Stop():
                sys.exit(0)

    def _pretend_to_read(self, command: Submit | Count) -> None:
        words = words_of(command)
        with self._notes.reading(1, command.id):
            while "endless" in words:
                sleep(1)
            if "unreadable" in words and "killed" in words:
                die()
            if "unreadable" in words:
                os.abort()

    def _submit(self, command: Submit) -> None:
        self._pretend_to_read(command)
        if (word := words_of(command)[0]).startswith("send="):
            self._sock.sendall(bytes.fromhex(word.removeprefix("send=")))
            return
        job = job_of(command)
        if job.n_prompt >= self._context:
            text = f"the prompt has {job.n_prompt} tokens and the context holds {self._context}"
            code, facts = "context_length_exceeded", {"prompt_tokens": job.n_prompt, "context": self._context}
            self.send(Refused(id=job.id, code=code, message=text, param="messages", **facts))
            return
        self.send(Accepted(job.id, job.n_prompt))
        self._prompt_tokens += job.n_prompt
        self._waiting += [replace(job, id=job.id + index) for index in range(command.n)]

    def _embed(self, command: Embed) -> None:
        """A vector's first number is the count of words; the text `die` ends the process."""
        sizes = [len(text.split(" ")) if isinstance(text, str) else len(text) for text in command.inputs]
        if command.inputs == ["die"]:
            self._notes.batch([command.id])
            die()
        if max(sizes) > self._context:
            text = f"input[0] has {max(sizes)} tokens, and a text to embed may have {self._context} at most"
            code, facts = "context_length_exceeded", {"prompt_tokens": max(sizes), "context": self._context}
            self.send(Refused(id=command.id, code=code, message=text, param="input", **facts))
            return
        for index, size in reversed(list(enumerate(sizes))):
            data = struct.pack("<4f", size, 0.5, 0, 1)[: 4 * (command.dimensions or 4)]
            self.send(Embedded(id=command.id, index=index, tokens=size, data=data))

    def _cancel(self, number: int) -> None:
        for jobs in (self._running, self._waiting):
            for job in [job for job in jobs if job.id == number]:
                jobs.remove(job)
                self._outputs.append(job.output("", "cancelled"))

    def _step(self) -> None:
        while self._waiting and len(self._running) < self._slots:
            job = self._waiting.popleft()
            job.due = monotonic() + job.delay
            self._running.append(job)
        self._notes.batch([job.id for job in self._running])
        for job in [job for job in self._running if job.due <= monotonic()]:
            self._advance(job)
        counts = len(self._running), len(self._waiting)
        if self._outputs or counts != self._told:
            self._told = counts
            self._steps += 1
            self.send(self._stats())
            self.send(StepDone(outputs=self._outputs, running=counts[0], waiting=counts[1]))
            self._outputs = []

    def _stats(self) -> EngineStats:
        return EngineStats(
            times=StepTimes(steps=self._steps, total=1.0, decode=0.5),
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._prompt_tokens // 2,
            generated_tokens=self._generated_tokens,
            preemptions=0,
            kv_cells=self._context,
            kv_used=3,
            kv_busy=len(self._running),
            kv_shared=1,
        )

    def _advance(self, job: Job) -> None:
        if job.done == job.die_at and job.blamed:
            with self._notes.grammar(job.id):
                die()
        if job.done == job.die_at:
            die()
        if job.done == len(job.words) - 1 and not is_open(job.gate):
            job.due = monotonic() + 0.01
            return
        text = job.words[job.done]
        job.done += 1
        self._generated_tokens += 1
        job.due = monotonic() + job.delay
        is_last = job.done == len(job.words)
        self._outputs.append(job.output(text, job.reason if is_last else None))
        if is_last:
            self._running.remove(job)


def is_open(gate: str | None) -> bool:
    return gate is None or Path(gate).exists()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def load(engine: FakeEngine, path: str) -> FakeModel | None:
    """Loads a fake model; None where it cannot be loaded."""
    try:
        model = msgspec.json.decode(Path(path).read_bytes(), type=FakeModel)
    except (OSError, msgspec.MsgspecError) as error:
        engine.send(Failed(f"{path}: {error}"))
        return None
    engine.send(Loading(0.5))
    sleep(model.load)
    while not is_open(model.gate):
        sleep(0.01)
    if model.die_loading:
        print("the fake dies while it loads", file=sys.stderr, flush=True)
        die()
    if model.fail is not None:
        engine.send(Failed(model.fail, model.fail_code))
        return None
    return model


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    config = msgspec.json.decode(sys.argv[1], type=EngineConfig)
    notes = CrashNotes(int(sys.argv[3]))
    notes.watch()
    with socket.socket(fileno=int(sys.argv[2])) as sock:
        engine = FakeEngine(sock, config, notes)
        model = load(engine, config.path)
        if model is None:
            return 1
        engine.send(engine.ready())
        engine.run(None if model.die_ready is None else monotonic() + model.die_ready)
    return 0


if __name__ == "__main__":
    sys.exit(main())
