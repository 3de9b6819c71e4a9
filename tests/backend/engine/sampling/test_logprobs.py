"""Log probabilities: what they are, and that none tells of text that was not given out."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest

from llama_backend.engine.llama.log_softmax import LEAST, log_softmax_of
from llama_backend.engine.sampling.logprobs import LogprobTrail
from llama_backend.wire.ipc import TokenLogprob
from tests.support.engine.fakes import Bench, lone_answer

LONG = next([n] * 5 for n in range(1, 900) if len(lone_answer([n] * 5, None, 400)[0].split()) > 50)


def entries(*tokens: bytes) -> list[TokenLogprob]:
    return [TokenLogprob(token, -1.0, []) for token in tokens]


def test_they_are_the_logarithm_of_softmax() -> None:
    logits = np.array([1.0, 3.0, 2.0, -1.0], np.float32)
    total = log(sum(exp(logit) for logit in logits))
    logprob, best = log_softmax_of(logits, 3, 2)
    assert logprob == pytest.approx(-1 - total)
    assert [token for token, _ in best] == [1, 2]
    assert [value for _, value in best] == pytest.approx([3 - total, 2 - total])


@pytest.mark.parametrize("top", [0, 1, 4, 20])
def test_there_are_as_many_alternatives_as_asked_for_and_possible(top: int) -> None:
    _, best = log_softmax_of(np.array([0.0, 1.0, 2.0, 3.0], np.float32), 0, top)
    assert [token for token, _ in best] == [3, 2, 1, 0][:top]


@pytest.mark.parametrize("size", [1, 255, 256, 257, 5000, 49152])
@pytest.mark.parametrize("top", [0, 1, 5, 20])
def test_the_likeliest_of_many_are_found(size: int, top: int) -> None:
    logits = np.random.default_rng(size).normal(size=size).astype(np.float32)
    _, best = log_softmax_of(logits, 0, top)
    assert [token for token, _ in best] == np.argsort(-logits)[:top].tolist()


def test_what_is_impossible_has_a_number() -> None:
    logits = np.array([0.0, -np.inf, np.nan], np.float32)
    assert log_softmax_of(logits[:2], 1, 2) == (LEAST, [(0, 0.0), (1, LEAST)])
    assert log_softmax_of(logits, 2, 0) == (LEAST, [])


def test_large_logits_do_not_overflow() -> None:
    logprob, _ = log_softmax_of(np.array([1e30, 1e30], np.float32), 0, 0)
    assert logprob == pytest.approx(-log(2))


def test_an_entry_comes_with_the_text_that_its_token_begins_in() -> None:
    trail = LogprobTrail(0)
    one, two, three = entries(b"a\xc3", b"\xa9", b"bc")
    trail.add(one)
    assert trail.take("a") == [one]
    trail.add(two)
    assert trail.take("é") == [two]
    trail.add(three)
    assert trail.take("b") == [three]
    assert trail.take("c", is_end=True) == []


def test_a_space_that_was_left_out_counts() -> None:
    trail = LogprobTrail(0)
    one, two = entries(b" a", b"b")
    trail.add(one)
    assert trail.take("a") == [one]
    trail.add(two)
    assert trail.take("") == []
    assert trail.take("b") == [two]


def test_what_a_stop_string_cuts_off_has_no_entry() -> None:
    trail = LogprobTrail(0)
    found = entries(b"ab", b"cd", b"")
    for entry in found:
        trail.add(entry)
    assert trail.take("ab") == found[:1]


def test_tokens_without_text_come_in_the_end() -> None:
    trail = LogprobTrail(0)
    found = entries(b"", b"a", b"")
    for entry in found:
        trail.add(entry)
    assert trail.take("a") == found[:2]
    assert trail.take("", is_end=True) == found[2:]


def answer(stop: str | None = None) -> tuple[str, list[TokenLogprob]]:
    """Text and entries of an answer of the fake model."""
    bench = Bench()
    bench.submit(1, LONG, max_tokens=12, stop=stop, top_logprobs=2)
    text, found = "", list[TokenLogprob]()
    while bench.engine.busy:
        for output in bench.engine.step().outputs:
            text += output.text
            assert output.logprobs is not None
            found += output.logprobs
    return text, found


def test_the_entries_of_an_answer_make_its_text() -> None:
    text, found = answer()
    assert len(found) == 12
    assert b"".join(entry.token for entry in found).decode() == text
    assert all([value for _, value in entry.top] == [-0.5, -1.5] for entry in found)


def test_a_stop_string_ends_the_entries_too() -> None:
    words = answer()[0].split()
    text, found = answer(stop=words[5])
    assert b"".join(entry.token for entry in found).decode() == text == " ".join(words[:5]) + " "
