"""How many prompt tokens a step may compute, so that it stays short while anyone reads a stream."""

from __future__ import annotations

from llama_backend.engine.cost_model import CostModel

BESIDE_SECONDS = 0.5
"""The longest that a step should take beside others who read a stream."""
ALONE_SECONDS = 1.0
"""The longest that a step should take without any: so long may a cancellation have to wait."""
_LEAST = 16
"""Prompt tokens of a step, however slow they are."""
_TILE = 64
"""Queries that llama.cpp's flash attention takes at once on a CPU (GGML_FA_TILE_Q). With fewer it goes one by one: on
top of 2,900 tokens 63 took 650 ms and 64 took 478."""
_NEARLY = 48
"""From here on a whole tile is computed as quickly as a part of it."""


class PrefillBudget:
    """Prompt tokens for each step, by what the steps before have cost.

    `beside` and `alone` are the longest that a step should take, in seconds, with running streams and without. The
    numbers of tokens are whole tiles, where a whole tile is near.
    """

    def __init__(
        self, n_batch: int, costs: CostModel, beside: float = BESIDE_SECONDS, alone: float = ALONE_SECONDS
    ) -> None:
        self._n_batch = n_batch
        self._costs = costs
        self._beside = beside
        self._alone = alone

    def tokens(self, decoding: int) -> int:
        """The most prompt tokens for the next step, beside `decoding` sequences that get a token each."""
        room = self._n_batch - decoding
        count, each = _TILE, self._costs.prompt_token_seconds
        if each is not None:
            seconds = self._beside - self._costs.step_seconds(decoding) if decoding else self._alone
            count = max(_LEAST, int(seconds / each))
        return min(room, _in_tiles(min(count, room)))


def _in_tiles(count: int) -> int:
    """Whole tiles in place of about as many tokens; a few tokens as they are."""
    return max(1, (count + _TILE // 10) // _TILE) * _TILE if count >= _NEARLY else count
