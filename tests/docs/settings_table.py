"""The tables of docs/settings.md, made from the declaration of the settings.

`python -m tests.docs.settings_table` writes them; they stand between the two markers in the document.
"""

from __future__ import annotations

import re

from llama_chat.settings import SETTINGS, Section, default_text, flags_of

BEGIN, END = "<!-- settings:begin -->", "<!-- settings:end -->"
HEADINGS: dict[Section, str] = {
    "common": "For every command",
    "compute": "How a backend computes",
    "serve": "Only for `serve`",
    "sampling": "How tokens are chosen",
}
COLUMNS = ("setting", "default", "option", "meaning")


def settings_tables() -> str:
    """Markdown: a heading and a table for each kind of setting."""
    return "\n\n".join(f"### {heading}\n\n{_table(section)}" for section, heading in HEADINGS.items())


def part_between_markers(document: str) -> str:
    """What a document has between the markers."""
    return document.partition(BEGIN)[2].partition(END)[0].strip("\n")


def _table(section: Section) -> str:
    rows = [_row(name) for name, setting in SETTINGS.items() if setting.section == section]
    return "\n".join([_line(COLUMNS), "|---" * len(COLUMNS) + "|", *map(_line, rows)])


def _line(cells: tuple[str, ...]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def _row(name: str) -> tuple[str, ...]:
    default = default_text(name)
    if default and re.fullmatch(r"[\w.]+", default):
        default = f"`{default}`"
    option = ", ".join(f"`{flag}`" for flag in _flags(name))
    if SETTINGS[name].section == "sampling" and not option:
        option = f"`-o {name} …`"
    return f"`{name}`", default, option, SETTINGS[name].help


def _flags(name: str) -> list[str]:
    """The spellings of an option, those of a switch one by one."""
    return [flag.strip() for flags in flags_of(name) for flag in flags.split("/") if flag.strip()]


if __name__ == "__main__":
    print(f"{BEGIN}\n\n{settings_tables()}\n\n{END}")
