"""llama.cpp's log lines are taken; none reaches a terminal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llama_backend.engine.llama.binding import LlamaLog, lib

INFO, WARN, ERROR, CONTINUED = 2, 3, 4, 5


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def log(lines: list[str], llama_log: LlamaLog) -> Iterator[LlamaLog]:
    yield LlamaLog(lines.append)
    lib.llama_log_set(llama_log._callback, None)


def test_only_serious_lines_are_kept(log: LlamaLog, lines: list[str]) -> None:
    log._take(INFO, b"all is well\n", None)
    log._take(WARN, b"look out\n", None)
    log._take(ERROR, b"too late\n\n", None)
    assert lines == list(log.lines) == ["look out", "too late"]


def test_lines_in_parts_and_several_at_once(log: LlamaLog, lines: list[str]) -> None:
    log._take(ERROR, b"one ", None)
    log._take(CONTINUED, b"line\nand ", None)
    log._take(CONTINUED, b"another\n", None)
    log._take(INFO, b"nothing\n", None)
    log._take(ERROR, b"bad \xff byte\n", None)
    assert lines == ["one line", "and another", "bad \ufffd byte"]


def test_the_reason_is_the_first_error(log: LlamaLog) -> None:
    assert log.reason == ""
    log._take(WARN, b"something odd\n", None)
    assert log.reason == "something odd"
    log._take(ERROR, b"error loading model: why\n", None)
    log._take(ERROR, b"an error after it\n", None)
    assert log.reason == "error loading model: why"


def test_only_so_many_lines_are_kept(log: LlamaLog) -> None:
    for number in range(1000):
        log._take(WARN, f"{number}\n".encode(), None)
    assert len(log.lines) == 50
    assert log.lines[-1] == "999"
