"""Prometheus' text format, version 0.0.4: a page of metrics with its families and samples.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str]
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Histogram:
    """Counts values up to each of some bounds, and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, *bounds: float) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self._counts)

    def lines(self, name: str, labels: Labels) -> Iterable[str]:
        """The samples of a family `name`: the buckets, each of which includes those below it, the sum and the count."""
        below = 0
        for bound, count in zip((*map(_number, self._bounds), "+Inf"), self._counts, strict=True):
            below += count
            yield f"{name}_bucket{_labelled({**labels, 'le': bound})} {below}"
        yield f"{name}_sum{_labelled(labels)} {_number(self._sum)}"
        yield f"{name}_count{_labelled(labels)} {self.count}"


class Page:
    """One page of metrics. A sample whose value is None and a family without samples are left out.

    Samples that are written to a family later are added to it.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._families: dict[str, list[str]] = {}

    def counter(self, name: str, about: str, *samples: tuple[Labels, float | None]) -> None:
        """A number that only grows; its name ends in `_total`."""
        self._family(name, "counter", about, samples)

    def gauge(self, name: str, about: str, *samples: tuple[Labels, float | None]) -> None:
        """A number that grows and falls."""
        self._family(name, "gauge", about, samples)

    def histogram(self, name: str, about: str, *samples: tuple[Labels, Histogram]) -> None:
        """A distribution of values."""
        lines = [line for labels, histogram in samples for line in histogram.lines(self._prefix + name, labels)]
        self._write(name, "histogram", about, lines)

    @property
    def content(self) -> bytes:
        """The page as it is sent."""
        return "".join(f"{line}\n" for lines in self._families.values() for line in lines).encode()

    def _family(self, name: str, kind: str, about: str, samples: Iterable[tuple[Labels, float | None]]) -> None:
        full = self._prefix + name
        lines = [f"{full}{_labelled(labels)} {_number(value)}" for labels, value in samples if value is not None]
        self._write(name, kind, about, lines)

    def _write(self, name: str, kind: str, about: str, lines: list[str]) -> None:
        if lines:
            full = self._prefix + name
            self._families.setdefault(full, [f"# HELP {full} {about}", f"# TYPE {full} {kind}"]).extend(lines)


def _labelled(labels: Labels) -> str:
    pairs = [f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items()]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _number(value: float) -> str:
    return repr(value) if isinstance(value, float) and not value.is_integer() else str(int(value))
