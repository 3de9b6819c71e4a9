"""Grammars and schemas that are meant to do harm: each gets a verdict, soon, and never by a fault of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
from hypothesis import strategies as st

from llama_backend.wire.grammar_verdict import Question, Verdict
from tests.backend.engine.prompt.test_vocab import sentencepiece_without_a_space
from tests.hostile.trial import Check, Trial
from tests.hostile.words import one_of
from tests.support.server.harness import python_path

_SECONDS = 60.0
"""Wall-clock time of three seconds of processor time, on a machine that is busy."""
_MOST_ERROR = 1000
_TRACEBACK = 1
"""The exit code of a fault of ours; a process that the system or llama.cpp ends has others."""

_ATOMS = one_of(
    r"""
    "a" · "yes" · "" · [a-z] · [^a] · [\x00] · [\U0010ffff] · [\uD800] · . · <[5]> · <[99999999]> · !<[5]> · <a> ·
    "\x41" · "\u12" · [z-a] · [] · root · a1 · nosuch · "é" · " · [ · ( · ) · # · ::= · | · <[
    """
)
_REPEATS = st.sampled_from(
    ["", "", "?", "*", "+", "{3}", "{0}", "{2,}", "{,2}", "{5,2}", "{100000}", "{4294967297}", "**", "+?"]
)


def _expression() -> st.SearchStrategy[str]:
    atoms = st.tuples(_ATOMS, _REPEATS).map("".join)

    def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.lists(inner, min_size=1, max_size=4).map(" ".join),
            st.lists(inner, min_size=1, max_size=4).map(" | ".join),
            st.tuples(inner, _REPEATS).map(lambda parts: f"({parts[0]}){parts[1]}"),
        )

    return st.recursive(atoms, grow, max_leaves=10)


def _doubling(depth: int) -> str:
    """A grammar whose ways grow with two to the power of its depth."""
    rules = [f"a{n} ::= a{n + 1} a{n + 1} | a{n + 1}" for n in range(1, depth)]
    return "\n".join(["root ::= [a]{3} a1", *rules, f'a{depth} ::= "x"?'])


def _grammars() -> st.SearchStrategy[str]:
    rules = st.tuples(st.sampled_from(["root", "a1", "a2", "a-b", "", "é"]), _expression())
    texts = st.lists(rules.map(" ::= ".join), max_size=5).map("\n".join)
    rooted = st.tuples(_expression(), texts).map(lambda parts: f"root ::= {parts[0]}\na1 ::= [b]?\n{parts[1]}")
    deep = st.integers(1, 60_000).map(lambda depth: "root ::= " + "(" * depth + '"a"' + ")" * depth)
    return st.one_of(rooted, rooted, texts, st.integers(1, 40).map(_doubling), deep, st.text(max_size=200))


_KEYWORDS = one_of(
    r"""
    type · properties · required · items · prefixItems · minItems · maxItems · minLength · maxLength · enum ·
    const · anyOf · oneOf · allOf · $ref · $defs · format · minimum · maximum · exclusiveMinimum ·
    additionalProperties · title · pattern · not · a · 
    """
)
_VALUES = st.one_of(
    st.sampled_from([None, True, False, 0, -1, 1, 3, 100_000, 10**30, 1.5, "", "\x00", "é" * 1000]),
    one_of('a · object · array · string · integer · null · date · # · #/$defs/a · #/a · #// · "\\'),
)


def _schemas() -> st.SearchStrategy[Any]:
    def grow(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.one_of(st.dictionaries(_KEYWORDS, inner, max_size=4), st.lists(inner, max_size=4))

    return st.recursive(_VALUES, grow, max_leaves=12)


def _valid() -> st.SearchStrategy[Any]:
    """Schemas that are meant to be used, and their like."""

    def grow(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        names = st.sampled_from(["a", "b", "é", '"', "\\", "\n", "x" * 300])
        return st.one_of(
            st.dictionaries(names, inner, max_size=5).map(lambda found: {"type": "object", "properties": found}),
            inner.map(lambda found: {"type": "array", "items": found, "minItems": 2}),
            st.lists(inner, min_size=1, max_size=4).map(lambda found: {"anyOf": found}),
            st.lists(_VALUES, min_size=1, max_size=4).map(lambda found: {"enum": found}),
        )

    kinds = [
        {"type": "string"},
        {"type": "integer", "minimum": -5, "maximum": 10**6},
        {},
        {"$ref": "#"},
        {"type": "null"},
    ]
    return st.recursive(st.sampled_from(kinds), grow, max_leaves=12)


def _cases() -> st.SearchStrategy[bytes]:
    questions = st.one_of(
        _grammars().map(lambda text: Question(grammar=text)),
        _schemas().map(lambda schema: Question(json_schema=schema)),
        _valid().map(lambda schema: Question(json_schema=schema)),
    )
    return questions.map(msgspec.json.encode)


@contextmanager
def _opened(work: Path) -> Iterator[Check]:
    model = work / "vocabulary.gguf"
    model.write_bytes(sentencepiece_without_a_space())
    yield lambda case: _check(case, model)


def _check(case: bytes, model: Path) -> None:
    begin = monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "llama_backend.engine.llama.grammar_check", str(model)],
        input=case,
        env=os.environ | {"PYTHONPATH": python_path()},
        capture_output=True,
        check=False,
        timeout=2 * _SECONDS,
    )
    assert monotonic() - begin < _SECONDS
    assert done.returncode != _TRACEBACK, done.stderr.decode()[-500:]
    if not done.stdout:
        return
    verdict = msgspec.json.decode(done.stdout, type=Verdict)
    assert (verdict.grammar is None) != (verdict.error is None)
    assert len(verdict.error or "") < _MOST_ERROR
    assert "\n" not in (verdict.error or "")


_KNOWN = (
    b'{"grammar":"root ::= \\"a\\"{5,2}"}',
    b'{"json_schema":{"type":{"a":1}}}',
    b'{"json_schema":{"properties":{"a":{}},"required":[["a"]]}}',
)
GRAMMARS = Trial("grammars", _cases(), _opened, examples=15, known=_KNOWN)
