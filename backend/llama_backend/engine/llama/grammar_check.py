"""`python -m llama_backend.engine.llama.grammar_check MODEL`: checks whether llama.cpp can work with a grammar.

It reads a Question as JSON from standard input and writes a Verdict to standard output. It runs in a process of its
own for each grammar, since a grammar may make llama.cpp crash, hang or take all memory. If this process dies, the
grammar cannot be used.
"""

from __future__ import annotations

import os
import re
import resource
import sys
from math import ceil
from pathlib import Path
from random import Random
from time import process_time

import msgspec

from llama_backend.crash_notes import nameless_file
from llama_backend.engine.llama.binding import lib
from llama_backend.engine.llama.grammar import Candidates, Grammar
from llama_backend.engine.llama.log import LlamaLog
from llama_backend.engine.sampling.json_schema import grammar_of
from llama_backend.errors import InvalidRequest
from llama_backend.host.parent import die_with_parent
from llama_backend.wire.grammar_verdict import MOST_CHARACTERS, Question, Verdict

_LOAD_SECONDS = 30
"""Most processor time until the vocabulary is loaded."""
_CPU_SECONDS = 3
"""Most processor time from then on."""
_NICE = 10
"""The nice value of the process, so that it does not slow down engines."""
_MEMORY = 1 << 30
"""Most bytes of memory of this process."""
_STEPS = 16
"""Tokens that are chosen at random to try a grammar."""
_REASON = re.compile("^parse: error parsing grammar: (.*)", re.MULTILINE)
"""What llama.cpp's parser writes to standard error, not to the log."""
_MOST_REASON = 200
_TOKEN_ID = re.compile(r'"(?:\\.|[^"\\])*"|(?<!<)\[(?:\\.|[^\]\\])*\]|#[^\n]*|<\[(?P<id>\d+)\]>')
"""A token by its id; strings, sets of characters and comments are matched too, since they may contain the same text."""
_MOST_DIGITS = 9


def check(question: Question, vocab: int | None) -> Verdict:
    """The verdict on a grammar or schema. Without a vocabulary, the grammar is only parsed."""
    try:
        text = grammar_of(question.json_schema) if question.grammar is None else question.grammar
        if len(text) > MOST_CHARACTERS:
            raise InvalidRequest(f"grammar: it has more than {MOST_CHARACTERS} characters", param="grammar")
        _check_ids(text, vocab)
        _try_tokens(text, vocab)
    except InvalidRequest as error:
        return Verdict(error=error.message)
    except RecursionError:
        return Verdict(error="json_schema: it is nested too deeply")
    return Verdict(grammar=text)


def _vocab(model: str) -> int | None:
    """The address of llama.cpp's vocabulary of a model's file, or None where the file cannot be read."""
    params = lib.llama_model_default_params()
    params.vocab_only = True
    handle = lib.llama_model_load_from_file(model.encode(), params) if Path(model).is_file() else None
    return lib.llama_model_get_vocab(handle) if handle else None


def _check_ids(text: str, vocab: int | None) -> None:
    """Raises InvalidRequest for a token id that the model does not have, which llama.cpp would accept."""
    if vocab is None:
        return
    size = lib.llama_vocab_n_tokens(vocab)
    for match in _TOKEN_ID.finditer(text):
        digits = match["id"]
        if digits and (len(digits) > _MOST_DIGITS or int(digits) >= size):
            text = f"{match[0][:_MOST_REASON]} is not a token of this model (0 to {size - 1})"
            raise InvalidRequest(f"grammar: {text}", param="grammar")


def _try_tokens(text: str, vocab: int | None) -> None:
    """Matches a few random tokens; within these, most grammars whose states grow without limit become noticeable."""
    grammar = Grammar(vocab, text)
    if vocab is None:
        return
    n_vocab, random = lib.llama_vocab_n_tokens(vocab), Random(0)
    candidates = Candidates(n_vocab)
    for step in range(_STEPS):
        candidates.fill(0)
        grammar.mask(candidates)
        allowed = candidates.allowed
        if not len(allowed):
            if step:
                return
            raise InvalidRequest("grammar: no token of this model can be the first one", param="grammar")
        token = int(random.choice(allowed))
        if lib.llama_vocab_is_eog(vocab, token):
            return
        grammar.accept(token)


def _limit() -> None:
    """Limits the remaining processor time, and lowers the priority of this process."""
    seconds = ceil(process_time()) + _CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    os.nice(_NICE)


def _verdict(question: Question, log: LlamaLog) -> Verdict:
    """The verdict, with the reason that llama.cpp's parser writes to standard error, or else to its log."""
    kept = os.dup(sys.stderr.fileno())
    with nameless_file() as said:
        os.dup2(said.fileno(), sys.stderr.fileno())
        try:
            vocab = _vocab(sys.argv[1])
            log.lines.clear()
            _limit()
            verdict = check(question, vocab)
        finally:
            os.dup2(kept, sys.stderr.fileno())
        said.seek(0)
        match = _REASON.search(said.read().decode("utf-8", "replace"))
    if verdict.error is not None and (reason := match[1] if match else log.reason):
        return Verdict(error=f"{verdict.error}: {reason[:_MOST_REASON]}")
    return verdict


def main() -> int:
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_CPU, (_LOAD_SECONDS, _LOAD_SECONDS))
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    log = LlamaLog(lambda line: None)
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    try:
        verdict = _verdict(question, log)
    except MemoryError:
        verdict = Verdict(error=f"the grammar takes more than {_MEMORY >> 20} MiB of memory")
    sys.stdout.buffer.write(msgspec.json.encode(verdict))
    return 0


if __name__ == "__main__":
    sys.exit(main())
