"""What the engines of one model have counted, one after another."""

from __future__ import annotations

from typing import Any

import msgspec

from llama_backend.wire.ipc import EngineStats


class Totals:
    """Sums of counters that go on where an engine dies and the next one counts from nothing."""

    def __init__(self) -> None:
        self._before: EngineStats | None = None
        self._current: EngineStats | None = None

    @property
    def latest(self) -> EngineStats | None:
        """What the engine that runs said last, of itself alone."""
        return self._current

    @property
    def stats(self) -> EngineStats | None:
        """The counters of all engines together; None before the first report."""
        if self._before is None or self._current is None:
            return self._current or self._before
        return _added(self._before, self._current)

    def take(self, stats: EngineStats) -> None:
        """Notes the report of the engine that runs."""
        self._current = stats

    def close(self) -> None:
        """Keeps what was counted by an engine that has ended; it holds no cells any more."""
        stats = self.stats
        if stats is not None:
            self._before = msgspec.structs.replace(stats, kv_cells=0, kv_used=0, kv_busy=0, kv_shared=0)
        self._current = None


def _added(a: EngineStats, b: EngineStats) -> EngineStats:
    """The sums of what is counted; the cells are those of `b`."""
    counts = ("prompt_tokens", "cached_tokens", "generated_tokens", "preemptions")
    times = {name: getattr(a.times, name) + getattr(b.times, name) for name in a.times.__struct_fields__}
    sums: dict[str, Any] = {name: getattr(a, name) + getattr(b, name) for name in counts}
    return msgspec.structs.replace(b, times=type(b.times)(**times), **sums)
