"""How many prompt tokens a step may take up, so that it stays short while anyone reads a stream."""

from __future__ import annotations

_FAST, _SMOOTH = 0.5, 0.2
_TILE = 64
"""Queries that llama.cpp's flash attention takes at once on a CPU (GGML_FA_TILE_Q). With fewer it goes one by one: on
top of 2,900 tokens 63 took 650 ms and 64 took 478."""
_NEARLY = 48
"""So many are computed as quickly in a whole tile."""


class PrefillBudget:
    """Learns what a prompt token costs from the steps that were run.

    `target` is the longest that a step should take beside running streams, `alone` the longest without
    any (it bounds how long a cancellation waits), both in seconds. Chunks are whole tiles where that is near.
    """

    def __init__(self, n_batch: int, target: float = 0.5, alone: float = 1.0, least: int = 16) -> None:
        self._n_batch = n_batch
        self._target = target
        self._alone = alone
        self._least = least
        self._decode_step = 0.0
        self._token_cost: float | None = None

    @property
    def token_seconds(self) -> float | None:
        """What a prompt token costs, as far as that is known."""
        return self._token_cost

    def tokens(self, decoding: int) -> int:
        """The most prompt tokens for the next step, beside `decoding` sequences that get a token each."""
        room = self._n_batch - decoding
        count = _TILE
        if self._token_cost is not None:
            target = self._target - self._decode_step if decoding else self._alone
            count = max(self._least, int(target / self._token_cost))
        return min(room, _in_tiles(min(count, room)))

    def longest(self, beside: bool) -> float:
        """The longest that a step should take, in seconds, where others read beside a sequence or not."""
        return self._target if beside else self._alone

    def observe(self, prefill: int, decode: int, seconds: float) -> None:
        """Takes in a step of `prefill` prompt tokens and `decode` single tokens that took `seconds`."""
        if not prefill:
            self._decode_step += _SMOOTH * (seconds - self._decode_step)
        elif prefill >= self._least:
            spent = max(seconds - (self._decode_step if decode else 0.0), 1e-6)
            self._learn(spent / prefill)

    def _learn(self, cost: float) -> None:
        old = self._token_cost
        self._token_cost = cost if old is None else old + _FAST * (cost - old)


def _in_tiles(count: int) -> int:
    """Whole tiles instead of about as many tokens; a few tokens as they are."""
    return max(1, (count + _TILE // 10) // _TILE) * _TILE if count >= _NEARLY else count
