"""The order of the rows of the query and key projections.

Hugging Face keeps the two halves of each rotated pair D/2 rows apart, ggml (like Meta) keeps them side by side:
output row h·D + 2j + s is input row h·D + s·D/2 + j, for head h, pair j and half s.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def permute_rows(rows: npt.NDArray[Any], head_dim: int, out: npt.NDArray[Any]) -> None:
    """Writes `rows`, whole heads of `head_dim` rows each, to `out` in ggml's order."""
    heads, columns = len(rows) // head_dim, rows.shape[1:]
    halves = rows.reshape(heads, 2, head_dim // 2, *columns)
    np.copyto(out.reshape(heads, head_dim // 2, 2, *columns), halves.swapaxes(1, 2))
