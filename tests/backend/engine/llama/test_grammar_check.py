"""The check of a grammar: in this process where that is safe, and as the server runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import pytest

from llama_backend.engine.llama.binding import lib
from llama_backend.engine.llama.grammar_check import check
from llama_backend.engine.llama.model import Model
from llama_backend.wire.grammar_verdict import MOST_CHARACTERS, Question, Verdict
from tests.support.server.harness import python_path


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


def run(question: Question, model: Path) -> tuple[int, bytes]:
    """The exit code and what was written."""
    done = subprocess.run(
        [sys.executable, "-m", "llama_backend.engine.llama.grammar_check", str(model)],
        input=msgspec.json.encode(question),
        env={"PYTHONPATH": python_path()},
        capture_output=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_a_grammar_comes_back_as_it_is() -> None:
    assert check(Question(grammar="root ::= [a]"), None) == Verdict(grammar="root ::= [a]")


@pytest.mark.parametrize("schema", [True, {}, {"type": "null"}])
def test_a_schema_comes_back_as_a_grammar(schema: Any) -> None:
    assert (check(Question(json_schema=schema), None).grammar or "").startswith("root ::= ws ")


@pytest.mark.parametrize(
    ("question", "error"),
    [
        (Question(grammar="root ::= ("), "cannot parse"),
        (Question(json_schema={"not": {}}), "'not'"),
        (Question(json_schema=nested(2000)), "nested too deeply"),
        (Question(json_schema={"const": "x" * MOST_CHARACTERS}), "more than"),
    ],
)
def test_what_cannot_be_used_is_told(question: Question, error: str) -> None:
    verdict = check(question, None)
    assert verdict.grammar is None
    assert error in (verdict.error or "")


@pytest.mark.parametrize("text", ["root ::= [\\x00]", "root ::= <[99999999]>"])
def test_a_grammar_that_no_token_can_begin_is_told(model: Model, text: str) -> None:
    verdict = check(Question(grammar=text), lib.llama_model_get_vocab(model.handle))
    assert verdict.error is not None


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("root ::= <[5]> <[49152]>", "<[49152]>"),
        ("root ::= <[5]> !<[99999999]>", "<[99999999]>"),
        (f"root ::= <[{'9' * 5000}]>", "<[999"),
        ("root ::= <[5]> <[49151]>", None),
        ('root ::= "<[99999999]>" # <[99999999]>', None),
        ("root ::= [a<[99999999\\]>] [b]", None),
    ],
)
def test_a_token_that_the_model_does_not_have_is_named(model: Model, text: str, wrong: str | None) -> None:
    verdict = check(Question(grammar=text), lib.llama_model_get_vocab(model.handle))
    assert verdict.error is None if wrong is None else f"{wrong}" in (verdict.error or "")
    assert len(verdict.error or "") < 400


def test_a_process_for_the_demo_model(demo_model: Path) -> None:
    code, out = run(Question(grammar='root ::= "yes" <|im_end|>?'), demo_model)
    assert code == 0
    assert msgspec.json.decode(out, type=Verdict).error is None


@pytest.mark.parametrize(
    "text",
    [
        "root ::= " + "(" * 60_000,
        "root ::= [a]{3} a1\n"
        + "\n".join(f"a{n} ::= a{n + 1} a{n + 1} | a{n + 1}" for n in range(1, 24))
        + '\na24 ::= "x"?',
    ],
)
def test_a_process_dies_of_what_would_end_an_engine(demo_model: Path, text: str) -> None:
    begin = monotonic()
    code, out = run(Question(grammar=text), demo_model)
    assert code < 0
    assert out == b""
    assert monotonic() - begin < 60
