"""How many prompt tokens a step may compute, so that it stays short while answers are streamed."""

from __future__ import annotations

from llama_backend.engine.cost_model import CostModel

BESIDE_SECONDS = 0.5
"""The longest that a step should take while other answers are streamed."""
ALONE_SECONDS = 1.0
"""The longest that a step should take otherwise; a cancellation may have to wait that long."""
_LEAST = 16
"""Prompt tokens that a step may always have, however slow they are."""
_TILE = 64
"""Tokens that llama.cpp's flash attention computes at once on a CPU (GGML_FA_TILE_Q); fewer are computed one by one:
after 2,900 tokens, 63 more took 650 ms and 64 took 478."""
_NEARLY = 48
"""From so many tokens on, a whole tile takes no longer than a part of one."""


class PrefillBudget:
    """Prompt tokens for each step, by what earlier steps have cost.

    `beside` and `alone` are the longest that a step should take, in seconds, with running answers and without. The
    numbers of tokens are rounded to whole tiles, unless they are small.
    """

    def __init__(
        self, n_batch: int, costs: CostModel, beside: float = BESIDE_SECONDS, alone: float = ALONE_SECONDS
    ) -> None:
        self._n_batch = n_batch
        self._costs = costs
        self._beside = beside
        self._alone = alone

    def tokens(self, decoding: int) -> int:
        """The most prompt tokens for the next step, in which `decoding` sequences get a token each."""
        room = self._n_batch - decoding
        count, each = _TILE, self._costs.prompt_token_seconds
        if each is not None:
            seconds = self._beside - self._costs.step_seconds(decoding) if decoding else self._alone
            count = max(_LEAST, int(seconds / each))
        return min(room, _in_tiles(min(count, room)))


def _in_tiles(count: int) -> int:
    """A number of tokens rounded to whole tiles, or as it is where it is small."""
    return max(1, (count + _TILE // 10) // _TILE) * _TILE if count >= _NEARLY else count
