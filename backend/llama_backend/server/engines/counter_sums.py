"""The counters of all engines that one model has had."""

from __future__ import annotations

from typing import Any

import msgspec

from llama_backend.wire.ipc import EngineStats


class CounterSums:
    """Sums of counters, which keep growing when an engine dies and the next one starts counting from zero."""

    def __init__(self) -> None:
        self._before: EngineStats | None = None
        self._current: EngineStats | None = None

    @property
    def stats(self) -> EngineStats | None:
        """The counters of all engines together; None before the first report."""
        if self._before is None or self._current is None:
            return self._current or self._before
        return _added(self._before, self._current)

    def take(self, stats: EngineStats) -> None:
        """Takes a report of the present engine."""
        self._current = stats

    def close(self) -> None:
        """Keeps the counts of an engine that has ended, but not the use of its KV cells, which are gone."""
        stats = self.stats
        if stats is not None:
            self._before = msgspec.structs.replace(stats, kv_cells=0, kv_used=0, kv_busy=0, kv_shared=0)
        self._current = None


def _added(a: EngineStats, b: EngineStats) -> EngineStats:
    """The sums of the counters; the KV cells are those of `b`."""
    counts = ("prompt_tokens", "cached_tokens", "generated_tokens", "preemptions")
    times = {name: getattr(a.times, name) + getattr(b.times, name) for name in a.times.__struct_fields__}
    sums: dict[str, Any] = {name: getattr(a, name) + getattr(b, name) for name in counts}
    return msgspec.structs.replace(b, times=type(b.times)(**times), **sums)
