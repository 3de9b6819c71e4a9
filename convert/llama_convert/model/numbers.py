"""Numbers of a configuration, each with the range in which it makes sense."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama_convert.errors import CorruptSource
from llama_convert.untrusted import excerpt

LARGEST = 3.4e38
"""The largest float of 32 bits, the type as which the numbers are written."""
MOST_CONTEXT = 1 << 30
"""Tokens."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The object `raw` of the file at `path`; `inside` is the name of that object, with a dot at its end."""

    raw: dict[str, Any]
    path: Path
    inside: str = ""

    def count(self, name: str, most: int, default: int | None = None) -> int:
        """A whole number from 1 to `most`; where it is missing, null or 0, the default.

        Raises CorruptSource where it is something else.
        """
        found: Any = self.raw.get(name) or default
        whole = isinstance(found, int) or (isinstance(found, float) and found.is_integer())
        if not whole or isinstance(found, bool) or not 1 <= found <= most:
            raise self._broken(name, f"a whole number from 1 to {most}")
        return int(found)

    def real(self, name: str, default: float | None = None, *, above: float = 0) -> float:
        """A number above `above`; where it is missing or null, the default.

        Raises CorruptSource where it is something else.
        """
        found: Any = self.raw.get(name)
        found = default if found is None else found
        if not isinstance(found, int | float) or isinstance(found, bool) or not above < found <= LARGEST:
            raise self._broken(name, f"a number above {above:g}")
        return float(found)

    def _broken(self, name: str, wanted: str) -> CorruptSource:
        where = f"{self.path}: {self.inside}{name}"
        if self.raw.get(name) is None:
            return CorruptSource(f"{where} is missing; it should be {wanted}")
        return CorruptSource(f"{where} is {excerpt(self.raw[name])}, but should be {wanted}")
