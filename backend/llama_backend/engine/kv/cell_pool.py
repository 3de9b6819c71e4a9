"""A pool of KV cells, and how many slots hold each of them."""

from __future__ import annotations

from collections.abc import Iterable


class CellPool:
    """Counts the holders of cells. Slots that share a cell have the same number for it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._holders: dict[int, int] = {}
        self._next = 0

    @property
    def used(self) -> int:
        """Cells that hold tokens; one that is shared counts once."""
        return len(self._holders)

    @property
    def free(self) -> int:
        """Cells that hold nothing."""
        return self.size - len(self._holders)

    def take(self, count: int) -> list[int]:
        """Takes `count` free cells, which have one holder now; returns their numbers."""
        cells = range(self._next, self._next + count)
        self._next += count
        self._holders.update(dict.fromkeys(cells, 1))
        return list(cells)

    def share(self, cells: Iterable[int]) -> None:
        """Counts one more holder of each of the cells."""
        for cell in cells:
            self._holders[cell] += 1

    def give_back(self, cells: Iterable[int]) -> None:
        """Counts one holder less of each of the cells; a cell without a holder is free."""
        for cell in cells:
            self._holders[cell] -= 1
            if not self._holders[cell]:
                del self._holders[cell]
