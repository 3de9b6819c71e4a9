"""Grammars and schemas of requests, checked in short-lived processes before an engine sees them."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import OrderedDict

import msgspec

from llama_backend.errors import InternalError, InvalidRequest
from llama_backend.grammar import Question, Verdict
from llama_backend.privacy import without_secrets
from llama_backend.sampling import SamplingParams

MODULE = "llama_backend.engine.grammar_check"
_AT_ONCE = 2
_SECONDS = 20.0
"""How long a check may take; the limit that counts is the one of its processor time."""
_KNOWN = 128


class Grammars:
    """Checks grammars for the model in a file, and remembers the last verdicts."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._known: OrderedDict[bytes, Verdict] = OrderedDict()
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def resolve(self, sampling: SamplingParams) -> SamplingParams:
        """The same parameters, with a grammar that was checked in place of a schema; raises InvalidRequest."""
        if sampling.grammar is None and sampling.json_schema is None:
            return sampling
        question = msgspec.json.encode(Question(grammar=sampling.grammar, json_schema=sampling.json_schema))
        async with self._places:
            verdict = self._known.get(question) or await self._ask(question)
        self._known[question] = verdict
        self._known.move_to_end(question)
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        if verdict.error is not None:
            raise InvalidRequest(verdict.error, param="json_schema" if sampling.grammar is None else "grammar")
        return msgspec.structs.replace(sampling, grammar=verdict.grammar, json_schema=None)

    async def _ask(self, question: bytes) -> Verdict:
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
        except TimeoutError:
            answer = b""
        finally:
            await _end(process)
        return _verdict(answer)


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()


def _verdict(answer: bytes) -> Verdict:
    """What a check said; one that died says that llama.cpp cannot work with the grammar."""
    try:
        return msgspec.json.decode(answer, type=Verdict)
    except msgspec.DecodeError:
        return Verdict(error="the grammar takes llama.cpp too long, too much memory, or ends it")
