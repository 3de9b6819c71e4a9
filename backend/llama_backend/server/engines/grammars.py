"""Grammars and schemas of requests, checked in short-lived processes before an engine sees them."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256

import msgspec

from llama_backend.account import LOCAL, Account
from llama_backend.errors import InvalidRequest
from llama_backend.server.engines.grammar_queue import GrammarQueue
from llama_backend.wire.grammar_verdict import Question, Verdict
from llama_backend.wire.sampling import SamplingParams

_MOST_KNOWN = 128


class Grammars:
    """Checks grammars for the model in a file, and remembers the last results."""

    def __init__(self, model: str) -> None:
        self._known = OrderedDict[bytes, Verdict]()
        self._queue = GrammarQueue(model)

    async def resolve(self, sampling: SamplingParams, account: Account = LOCAL) -> SamplingParams:
        """The same parameters after the check, with a schema turned into a grammar.

        Raises InvalidRequest for a grammar that cannot be used, and QueueFull where too many wait to be checked.
        """
        if sampling.grammar is None and sampling.json_schema is None:
            return sampling
        question = msgspec.json.encode(Question(grammar=sampling.grammar, json_schema=sampling.json_schema))
        name = sha256(question).digest()
        verdict = self._known.get(name) or await self._queue.ask(question, account)
        self._remember(name, verdict)
        if verdict.error is not None:
            raise InvalidRequest(verdict.error, param="json_schema" if sampling.grammar is None else "grammar")
        return msgspec.structs.replace(sampling, grammar=verdict.grammar, json_schema=None)

    def _remember(self, name: bytes, verdict: Verdict) -> None:
        self._known[name] = verdict
        self._known.move_to_end(name)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
