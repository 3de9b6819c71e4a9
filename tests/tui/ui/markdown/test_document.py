"""Markdown as rows: what the eye sees, at which width, however the source comes in."""

from __future__ import annotations

import pytest

from llama_chat.ui.markdown.document import MarkdownDocument

EVERYTHING = """# Title

A paragraph with **bold**, *italic*, `code` and [a link](https://example.org), long enough to be wrapped.
Second line.

1. one
2. two
   - nested
   - nested too

   ```sh
   ls -l
   ```
3. three

> quoted
> > deeper

| left | right |
|------|------:|
| a    |     1 |
| b    |    22 |

***

```python
def f() -> int:
    return 1
```

Last words.
"""


def shown(source: str, width: int = 40) -> list[str]:
    return [row.content.plain.rstrip() for row in MarkdownDocument(source).rows(width)]


@pytest.mark.parametrize(
    ("source", "rows"),
    [
        ("", []),
        ("one two", ["one two"]),
        ("one\n\ntwo", ["one", "", "two"]),
        ("a verse\nof two lines", ["a verse", "of two lines"]),
        ("# Title\nText", ["Title", "", "Text"]),
        ("- a\n- b", ["• a", "• b"]),
        ("- a\n\n- b", ["• a", "", "• b"]),
        ("- a\n  - b\n    - c", ["• a", "  ◦ b", "    ▪ c"]),
        ("9. a\n10. b", [" 9. a", "10. b"]),
        ("- a\n\n  more\n- b", ["• a", "", "  more", "", "• b"]),
        ("-", ["•"]),
        ("> a\n> b\n>\n> c", ["▎ a", "▎ b", "▎", "▎ c"]),
        ("> - a\n> - b", ["▎ • a", "▎ • b"]),
        ("```\na\n\n  b\n```", [" a", "", "   b"]),
        ("    indented", [" indented"]),
        ("```\n\ttab\n```", ["     tab"]),
        ("- a\n  ```\n  b\n  ```", ["• a", "   b"]),
        ("---", ["─" * 40]),
        ("a `b` c", ["a b c"]),
        ("[here](http://x.org)", ["here (http://x.org)"]),
        ("<http://x.org>", ["http://x.org"]),
        ("![a cat](http://x.org/cat.png)", ["[image: a cat]"]),
        ("~~no~~ **yes**", ["no yes"]),
        ("<b>html</b> &amp; <script>", ["<b>html</b> & <script>"]),
        ("<div>\nblock\n</div>", ["<div>", "block", "</div>"]),
        ("[bold]markup[/bold] $primary", ["[bold]markup[/bold] $primary"]),
        ("http://bare.example.org", ["http://bare.example.org"]),
        ("漢字と仮名", ["漢字と仮名"]),
    ],
)
def test_blocks(source: str, rows: list[str]) -> None:
    assert shown(source) == rows


def test_words_are_wrapped_and_hang_below_their_bullet() -> None:
    assert shown("- one two three four five six", 16) == ["• one two three", "  four five six"]


def test_code_is_folded_and_loses_nothing() -> None:
    assert shown("```\nabcdefghij klmnop\n```", 12) == [" abcdefghij", " klmnop"]
    assert "".join(shown("```\n" + "x" * 50 + "\n```", 12)).replace(" ", "") == "x" * 50


def test_prose_stays_readable_on_a_wide_terminal_and_code_takes_what_it_needs() -> None:
    assert max(map(len, shown("word " * 100, 300))) <= 100
    assert shown("```\n" + "x" * 250 + "\n```", 300) == [" " + "x" * 250]


def test_deep_nesting_keeps_room_for_text() -> None:
    source = "\n".join("  " * depth + f"- level {depth}" for depth in range(12))
    assert all(shown(source, 20))


@pytest.mark.parametrize("width", [1, 2, 7, 20, 40, 200])
def test_any_width_can_be_laid_out(width: int) -> None:
    assert shown(EVERYTHING, width)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 50])
def test_a_growing_document_ends_like_one_that_came_at_once(step: int) -> None:
    document = MarkdownDocument()
    for start in range(0, len(EVERYTHING), step):
        document.append(EVERYTHING[start : start + step])
        document.rows(40)
    whole = MarkdownDocument(EVERYTHING)
    assert document.rows(40) == whole.rows(40)
    assert document.rows(25) == whole.rows(25)
    assert document.source == EVERYTHING


@pytest.mark.parametrize("source", ["- item\n**Note** well", "> quote\n1984 was\n", "text\n``not a fence"])
def test_a_line_that_only_begins_like_a_block_goes_on_with_the_one_before(source: str) -> None:
    document = MarkdownDocument()
    for character in source:
        document.append(character)
    assert document.rows(40) == MarkdownDocument(source).rows(40)


def test_only_the_last_block_is_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    from llama_chat.ui.markdown import document as module

    real = module.parse_blocks
    monkeypatch.setattr(module, "parse_blocks", lambda source: parsed.append(source) or real(source))  # type: ignore[func-returns-value]
    document = MarkdownDocument("paragraph\n\n" * 100)
    document.append("more")
    document.append(" of it")
    document.append("\n\nnext\n")
    assert parsed[1:] == ["paragraph\n\nmore", "paragraph\n\nmore of it", "paragraph\n\nmore of it\n\nnext\n"]
    document.append("and on")
    assert parsed[4:] == ["next\nand on"]


def test_code_is_coloured_once_it_is_complete() -> None:
    document = MarkdownDocument("```python\ndef f(): pass\n")
    assert not document.rows(40)[0].content.spans
    document.append("```\n")
    assert document.rows(40)[0].content.spans


def test_an_unknown_language_is_plain() -> None:
    assert shown("```nosuchlanguage\nx = 1\n```") == [" x = 1"]
