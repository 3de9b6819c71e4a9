"""Hostile weights and models: `convert` and `models` report them in one line and do not crash."""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path

import pytest

from tests.support.gguf_files import gguf
from tests.tui.cli.conftest import run

FAULT = "something went wrong inside"


@pytest.fixture
def models(isolated_home: Path) -> Path:
    folder = isolated_home / "data" / "llama-chat" / "models"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["convert", "x" * 5000], 4, "no such folder"),
        (["convert", "~nobody-of-this-name/x"], 4, "no such folder"),
        (["convert", "./a\x1b[31m\nb"], 4, r"a\\x1b\[31m b: no such folder"),
        (["convert", "source", "--name", "../x"], 2, "cannot be the name of a model"),
        (["convert", "source", "--name=-rf"], 2, "cannot be the name of a model"),
        (["convert", "source", "--chat-template", "nowhere"], 2, "the chat template nowhere cannot be read"),
        (["convert", "source", "--chat-template", "bytes"], 2, "the chat template bytes is not a text"),
    ],
)
def test_errors_are_one_short_line_with_a_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    from tests.hostile.tokenizers import SENTENCES, lay_out

    lay_out(tmp_path / "source")
    (tmp_path / "source" / "tokenizer.model").write_bytes(SENTENCES)
    (tmp_path / "bytes").write_bytes(b"\xff")
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert (done.code, done.out) == (code, b"")
    assert re.fullmatch(rf"llama-chat: .*{message}.*\n", done.err)
    assert len(done.err) < 1100


def test_a_place_that_cannot_be_looked_at_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    done = run("convert", str(tmp_path), "--out", str(tmp_path / "loop"))
    assert done.code in (1, 2, 4)
    assert FAULT not in done.err


@pytest.mark.timeout(60)
def test_models_lists_what_it_can_read_and_says_what_is_wrong_with_the_rest(models: Path) -> None:
    (models / "good.gguf").write_bytes(gguf({"general.architecture": "llama"}))
    os.mkfifo(models / "pipe.gguf")
    (models / "zero.gguf").symlink_to("/dev/zero")
    (models / "text.gguf").write_bytes(gguf({}, keys=1) + struct.pack("<Q1sIQ", 1, b"x", 8, 6 << 30))
    os.truncate(models / "text.gguf", 7 << 30)
    done = run("models", "--json")
    assert done.code == 0, done.err
    found = {facts["name"]: facts.get("error") for facts in json.loads(done.out)}
    assert found["good"] is None
    assert "not a regular file" in found["pipe"]
    assert "not a regular file" in found["zero"]
    assert "6442450945 bytes of text" in found["text"]


RECORDS = [
    "[]",
    "{",
    '{"source": "x", "license": ["x"]}',
    '{"source": {"commit": 5, "repository": []}}',
    '{"license": {"a": 1}, "name": "../../x"}',
    '{"created": [[[]]], "warnings": 5, "seconds": "x"}',
]


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_from_elsewhere_breaks_no_list(models: Path, record: str) -> None:
    (models / "tiny.gguf").write_bytes(gguf({"general.architecture": "llama"}))
    (models / "tiny.json").write_text(record)
    for arguments in (["models"], ["models", "show", "tiny"], ["models", "rm", "tiny", "--yes"]):
        done = run(*arguments)
        assert (done.code, done.err) == (0, "")


def test_a_pipe_is_no_model_to_serve(models: Path) -> None:
    os.mkfifo(models / "pipe.gguf")
    done = run("models", "show", "pipe", timeout=30)
    assert done.code == 4
    assert "not a regular file" in done.err
