"""The table in docs/sampling.md names every sampling parameter, with the range that requests are checked against."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
from msgspec import inspect

from llama_backend.wire.sampling import SamplingParams

PAGE = Path(__file__).parents[2] / "docs" / "sampling.md"
ROW = re.compile(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|", re.MULTILINE)
SEED = "64-bit integers"


def rows() -> dict[str, str]:
    """The ranges by name, as the table has them."""
    return {name: text.strip() for name, text in ROW.findall(PAGE.read_text())}


def limits(kind: inspect.Type) -> str | None:
    """The range of a number, in the words of the table; None where it is no number."""
    if isinstance(kind, inspect.UnionType):
        return next(filter(None, map(limits, kind.types)), None)
    if isinstance(kind, inspect.Metadata):
        return limits(kind.type)
    if not isinstance(kind, inspect.IntType | inspect.FloatType):
        return None
    low = f"{kind.ge:.0f}" if kind.ge is not None else f"above {kind.gt:.0f}"
    return f"{low} to {kind.le:g}" if isinstance(kind, inspect.FloatType) else f"{low} to {kind.le:.0f}"


def fields() -> dict[str, inspect.Type]:
    found = inspect.type_info(SamplingParams)
    assert isinstance(found, inspect.StructType)
    return {field.name: field.type for field in found.fields}


def test_every_parameter_is_in_the_table() -> None:
    assert list(rows()) == [field.name for field in msgspec.structs.fields(SamplingParams)]


def test_the_ranges_are_those_of_requests() -> None:
    said = rows()
    wanted = {name: text for name, kind in fields().items() if (text := limits(kind)) is not None} | {"seed": SEED}
    assert {name: said[name] for name in wanted} == wanted
