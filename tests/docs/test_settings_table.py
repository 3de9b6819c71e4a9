"""docs/settings.md tells of every setting what its declaration says."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_chat.settings import SETTINGS
from tests.docs.settings_table import BEGIN, END, part_between_markers, settings_tables

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_tables_have_every_setting_once() -> None:
    tables = settings_tables()
    for name in SETTINGS:
        assert tables.count(f"\n| `{name}` |") == 1, name


def test_a_row_has_default_option_and_meaning() -> None:
    rows = settings_tables().splitlines()
    assert "| `port` | `8080` | `--port` | TCP port to listen on |" in rows
    assert "| `log` | `true` | `--log`, `--no-log`, `-n` | Whether conversations are kept in the history |" in rows
    assert "| `top_k` | | `-o top_k …` | Only the k most likely tokens; 0 is off |" in rows


@pytest.mark.skipif(not DOCUMENT.exists(), reason="the document is not written yet")
def test_the_document_is_up_to_date() -> None:
    document = DOCUMENT.read_text("utf-8")
    assert document.count(BEGIN) == document.count(END) == 1
    assert part_between_markers(document) == settings_tables(), "write it anew: python -m tests.docs.settings_table"
