"""The record beside a model: what is written, and which values of one from elsewhere are used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llama_convert.record import (
    InputFile,
    Record,
    RecordedCheck,
    RecordedSource,
    files_of,
    is_made_from,
    read_record,
    write_record,
)

RECORD = Record(
    name="tiny",
    file="tiny-Q8_0.gguf",
    size=5,
    quantization="Q8_0",
    tensors=3,
    context=128,
    license="mit",
    source=RecordedSource(repository="someone/tiny", commit="abc", files={"x.gguf": InputFile(5, "00")}),
    check=RecordedCheck([1, 2]),
    warnings=["a warning"],
    seconds={"fetch": 1.5, "check": 2},
    fingerprint="123",
)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    model = tmp_path / "tiny-Q8_0.gguf"
    model.write_bytes(b"GGUF")
    write_record(model, RECORD)
    found = read_record(model)
    assert {**RECORD.known(), "format": 1, "created": found.created, "versions": found.versions} == found.known()
    assert "llama_cpp_python" in found.versions
    assert is_made_from(model, "123")
    assert not is_made_from(model, "124")
    raw = json.loads((tmp_path / "tiny-Q8_0.json").read_text())
    assert list(raw)[:5] == ["format", "created", "versions", "name", "file"]
    assert raw["source"]["files"] == {"x.gguf": {"size": 5, "sha256": "00"}}
    assert raw["imatrix"] is None, "what is not known is written too"


def test_a_known_record_has_its_empty_lists(tmp_path: Path) -> None:
    assert Record(name="tiny").known()["warnings"] == []


def test_without_a_record_nothing_is_known(tmp_path: Path) -> None:
    assert read_record(tmp_path / "tiny.gguf") == Record()
    assert Record().known() == {}


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "\x00", '{"size": 1e999}'])
def test_a_record_that_is_none_is_no_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "tiny.json").write_text(text)
    assert read_record(tmp_path / "tiny.gguf") == Record()


def test_the_values_that_make_sense_are_read(tmp_path: Path) -> None:
    source = {"repository": "someone/tiny", "commit": 5, "files": {"x": {"size": "5"}}}
    raw = {"license": "mit", "size": "5", "context": 128, "warnings": [1], "source": source, "unknown": 1}
    (tmp_path / "tiny.json").write_text(json.dumps(raw))
    found = read_record(tmp_path / "tiny.gguf")
    assert found == Record(license="mit", context=128, source=RecordedSource(repository="someone/tiny"))


RECORDS: list[dict[str, Any]] = [
    {"name": "../secret"},
    {"name": "/tmp/secret"},
    {"name": ["x"]},
    {"name": "*"},
    {"source": "x"},
    {"source": {"repository": 5, "commit": ["x"]}},
    {"license": ["x"], "fingerprint": 5},
]


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_from_elsewhere_leads_to_no_file_of_others(tmp_path: Path, record: dict[str, Any]) -> None:
    """What `models rm` deletes is in the model's folder and bears its name."""
    models = tmp_path / "models"
    models.mkdir()
    for name in ("secret.LICENSE", "models/tiny.LICENSE", "models/tiny.gguf", "models/other.LICENSE"):
        (tmp_path / name).write_text("x")
    (models / "tiny.json").write_text(json.dumps(record))
    found = read_record(models / "tiny.gguf")
    assert found.name in (None, "*")
    assert (found.license, found.fingerprint, found.source) == (None, None, RecordedSource())
    assert sorted(path.name for path in files_of(models / "tiny.gguf")) == ["tiny.LICENSE", "tiny.gguf", "tiny.json"]


def test_the_last_model_of_a_conversion_has_its_licences_and_report(tmp_path: Path) -> None:
    models = [tmp_path / "tiny-Q4_K_M.gguf", tmp_path / "tiny-Q8_0.gguf"]
    for model in models:
        model.write_bytes(b"GGUF")
        write_record(model, RECORD)
    shared = ["tiny.LICENSE", "tiny-report.json", "tiny-report.png"]
    for name in (*shared, "tinier-report.json"):
        (tmp_path / name).write_text("x")
    assert [path.name for path in files_of(models[0])] == ["tiny-Q4_K_M.gguf", "tiny-Q4_K_M.json"]
    models[0].unlink()
    assert [path.name for path in files_of(models[1])] == ["tiny-Q8_0.gguf", "tiny-Q8_0.json", *shared]


def test_the_record_of_a_model_is_not_taken_for_a_report(tmp_path: Path) -> None:
    for name in ("tiny", "tiny-report"):
        (tmp_path / f"{name}.gguf").write_bytes(b"GGUF")
        write_record(tmp_path / f"{name}.gguf", Record(name=name))
    assert [path.name for path in files_of(tmp_path / "tiny.gguf")] == ["tiny.gguf", "tiny.json"]
