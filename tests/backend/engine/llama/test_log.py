"""llama.cpp's log lines are taken; none reaches a terminal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llama_backend.engine.llama.log import LlamaLog

INFO, WARN, ERROR, CONTINUED = 2, 3, 4, 5


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def log(lines: list[str], llama_log: LlamaLog) -> Iterator[LlamaLog]:
    yield LlamaLog(lines.append)
    llama_log.install()


def test_only_serious_lines_are_kept(log: LlamaLog, lines: list[str]) -> None:
    log.take(INFO, b"all is well\n")
    log.take(WARN, b"look out\n")
    log.take(ERROR, b"too late\n\n")
    assert lines == list(log.lines) == ["look out", "too late"]


def test_lines_in_parts_and_several_at_once(log: LlamaLog, lines: list[str]) -> None:
    log.take(ERROR, b"one ")
    log.take(CONTINUED, b"line\nand ")
    log.take(CONTINUED, b"another\n")
    log.take(INFO, b"nothing\n")
    log.take(ERROR, b"bad \xff byte\n")
    assert lines == ["one line", "and another", "bad \ufffd byte"]


def test_the_reason_is_the_first_error(log: LlamaLog) -> None:
    assert log.reason == ""
    log.take(WARN, b"something odd\n")
    assert log.reason == "something odd"
    log.take(ERROR, b"error loading model: why\n")
    log.take(ERROR, b"an error after it\n")
    assert log.reason == "error loading model: why"


def test_only_so_many_lines_are_kept(log: LlamaLog) -> None:
    for number in range(1000):
        log.take(WARN, f"{number}\n".encode())
    assert len(log.lines) == 50
    assert log.lines[-1] == "999"
