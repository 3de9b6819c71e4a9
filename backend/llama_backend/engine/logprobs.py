"""Log probabilities of the tokens of one answer, given out together with the text that they made."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from llama_backend.ipc import TokenLogprob

LEAST = -9999.0
"""What stands for a probability of zero, which JSON has no logarithm of; OpenAI's own value."""


def log_softmax_of(logits: npt.NDArray[np.float32], token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """The natural logarithm of a token's probability, and ids and logarithms of the `top` likeliest, in order.

    `logits` are those of the model, before any sampler has changed them.
    """
    relative = logits - logits.max()
    total = float(np.log(np.exp(relative).sum(dtype=np.float64)))
    cut = max(len(logits) - top, 0)
    best = np.argpartition(logits, cut)[cut:] if top else np.empty(0, np.int64)
    best = best[np.argsort(-logits[best], kind="stable")]
    found = [(int(other), _finite(float(relative[other]) - total)) for other in best]
    return _finite(float(relative[token]) - total), found


def _finite(logprob: float) -> float:
    return max(logprob, LEAST) if logprob == logprob else LEAST


class LogprobTrail:
    """Holds entries back until the text of their tokens is given out: none tells of what a stop string cut off."""

    def __init__(self, top: int) -> None:
        self.top = top
        """How many alternatives each entry has."""
        self._held: deque[tuple[int, TokenLogprob]] = deque()
        self._end = 0
        self._given = 0

    def add(self, entry: TokenLogprob) -> None:
        self._held.append((self._end, entry))
        self._end += len(entry.token)

    def take(self, text: str, is_end: bool = False) -> list[TokenLogprob]:
        """The entries of the tokens that begin in what was given out up to the end of `text`.

        At the end of an answer that no stop string cut off, those of tokens without text are among them.
        """
        if self._given == 0 and text and self._strips_space(text):
            self._given = 1
        self._given += len(text.encode())
        taken = []
        while self._held and (is_end or self._held[0][0] < self._given):
            taken.append(self._held.popleft()[1])
        return taken

    def _strips_space(self, text: str) -> bool:
        return bool(self._held) and self._held[0][1].token.startswith(b" ") and not text.startswith(" ")
