"""Grammars that wait to be checked: a few at a time, each in its own process, in an order fair between accounts."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import dataclass, field
from time import monotonic

import msgspec

from llama_backend.account import Account
from llama_backend.errors import BackendError, InternalError, QueueFull, Unavailable
from llama_backend.fair_queue import FairQueue
from llama_backend.host.privacy import without_secrets
from llama_backend.wire.grammar_verdict import Verdict

MODULE = "llama_backend.engine.llama.grammar_check"
_AT_ONCE = 4
_AT_ONCE_OF_ONE = 2
"""Most checks of one account at the same time, so that it cannot take all places."""
_MOST_WAITING = 128
_MOST_WAITING_OF_ONE = 32
_RETRY_SECONDS = 10.0
_SECONDS = 20.0
"""How long a check may take. The check itself limits its processor time, which is normally reached first."""


@dataclass(eq=False)
class _Check:
    """The check of one account's question; requests with the same question share one check."""

    question: bytes
    account: Account
    verdict: asyncio.Future[Verdict]
    waiters: int = 0
    task: asyncio.Task[None] | None = field(default=None)


class GrammarQueue:
    """Checks each grammar in a process, which is ended when no request waits for it any more."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._waiting = FairQueue[_Check]()
        self._checks: dict[tuple[str, bytes], _Check] = {}
        self._running = 0

    async def ask(self, question: bytes, account: Account) -> Verdict:
        """The verdict on a Question in JSON.

        Raises QueueFull where too many wait, and Unavailable where the check takes too long.
        """
        check = self._checks.get((account.name, question)) or self._add(question, account)
        check.waiters += 1
        try:
            return await asyncio.shield(check.verdict)
        finally:
            check.waiters -= 1
            if not check.waiters and not check.verdict.done():
                self._drop(check)

    def _add(self, question: bytes, account: Account) -> _Check:
        waiting = sum(check.account.name == account.name for check in self._waiting)
        if waiting >= _MOST_WAITING_OF_ONE or len(self._waiting) >= _MOST_WAITING:
            raise QueueFull(
                f"too many grammars wait to be checked ({waiting} of this key); try again later",
                retry_after=_RETRY_SECONDS,
            )
        most = min(account.max_running or _AT_ONCE_OF_ONE, _AT_ONCE_OF_ONE)
        limited = msgspec.structs.replace(account, max_running=most)
        check = _Check(question, limited, asyncio.get_running_loop().create_future())
        self._checks[account.name, question] = check
        self._waiting.add(check)
        self._start()
        return check

    def _start(self) -> None:
        while self._running < _AT_ONCE and (check := self._waiting.next()) is not None:
            self._waiting.take(check)
            self._running += 1
            check.task = asyncio.create_task(self._run(check))

    async def _run(self, check: _Check) -> None:
        begin = monotonic()
        try:
            verdict = await self._verdict(check.question)
        except BackendError as error:
            check.verdict.set_exception(error)
        else:
            check.verdict.set_result(verdict)
        finally:
            self._running -= 1
            self._waiting.charge(check, monotonic() - begin)
            self._waiting.done(check)
            self._unlist(check)
            self._start()

    def _drop(self, check: _Check) -> None:
        """Ends a check that no request waits for."""
        self._unlist(check)
        if check.task is not None:
            check.task.cancel()
        else:
            self._waiting.remove(check)

    def _unlist(self, check: _Check) -> None:
        """Removes a check from those that further requests can share."""
        if self._checks.get(key := (check.account.name, check.question)) is check:
            del self._checks[key]

    async def _verdict(self, question: bytes) -> Verdict:
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", MODULE, self._model),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                env=without_secrets(os.environ) | {"CUDA_VISIBLE_DEVICES": ""},
            )
        except OSError as error:
            raise InternalError(f"the grammar cannot be checked: {error.strerror or error}") from error
        try:
            answer, _ = await asyncio.wait_for(process.communicate(question), _SECONDS)
        except TimeoutError as error:
            raise Unavailable(
                "the grammar could not be checked in time; try again later", retry_after=_RETRY_SECONDS
            ) from error
        finally:
            await _end(process)
        return _decoded(answer)


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()


def _decoded(answer: bytes) -> Verdict:
    """The verdict that a check wrote; a check that wrote none has died, so llama.cpp cannot work with the grammar."""
    try:
        return msgspec.json.decode(answer, type=Verdict)
    except msgspec.DecodeError:
        return Verdict(error="the grammar makes llama.cpp crash, or takes it too much time or memory; simplify it")
