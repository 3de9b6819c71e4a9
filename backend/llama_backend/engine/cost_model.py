"""How long steps of a model and copies of KV cells take, learned from those that were run."""

from __future__ import annotations

from bisect import bisect_left, insort

from llama_backend.engine.moving_average import moving_average

_FASTER, _SLOWER = 0.3, 0.1
"""The weight of a step that was faster than expected, and of one that was slower. The latter is smaller, since other
processes often slow steps down for a short time."""
_MEMORY = 512
"""The estimate for a number of tokens that did not occur for so many steps is dropped."""
_FRESH = 64
"""A number of tokens that did not occur for so many steps must occur again before others are compared with it."""
_FURTHER_TOKEN = 0.5
"""What a further token is assumed to cost, as a part of the average one, where nothing is known."""
_PROMPT_WEIGHT = 0.5
_LEAST_PROMPT = 16
"""Prompt tokens that a step must have, for the cost of a prompt token to be learned from it."""
_COPY_WEIGHT = 0.3
_COPY_SECONDS = 1.5e-5
"""Assumed seconds for copying the KV cells of a token, until they are measured."""
_TOKEN_SECONDS = 1e-3
"""Assumed seconds for computing a token of a prompt, until they are measured."""


class CostModel:
    """Seconds of steps and copies, by which the budget of prompts, the KV cache and speculation decide.

    In steps without prompts, twice the tokens may take the same time (on a GPU that waits for its memory) or twice as
    long (on a CPU). So there is an estimate for each number of tokens, and numbers between two are interpolated.
    """

    def __init__(self) -> None:
        self.prompt_token_seconds: float | None = None
        """Seconds for a token of a prompt; None until it is known."""
        self._copy_seconds = _COPY_SECONDS
        self._seconds: dict[int, float] = {}
        self._seen: dict[int, int] = {}
        self._sizes: list[int] = []
        self._steps = 0

    def knows(self, tokens: int) -> bool:
        """Whether a step that decodes so many tokens was run not too long ago."""
        return self._steps - self._seen.get(tokens, -_FRESH) < _FRESH

    def step_seconds(self, tokens: int) -> float:
        """Seconds of a step that decodes `tokens`; 0 where nothing is known yet."""
        if tokens in self._seconds:
            return self._seconds[tokens]
        at = bisect_left(self._sizes, tokens)
        if at == len(self._sizes):
            return self._beyond(tokens)
        above = self._sizes[at]
        below, least = (self._sizes[at - 1], self._seconds[self._sizes[at - 1]]) if at else (0, 0.0)
        return least + (tokens - below) / (above - below) * (self._seconds[above] - least)

    def copying_pays(self, saved: int, copied: int) -> bool:
        """Whether computing `saved` tokens takes longer than copying the cells of `copied` tokens."""
        return saved * (self.prompt_token_seconds or _TOKEN_SECONDS) > copied * self._copy_seconds

    def observe_decode(self, tokens: int, seconds: float) -> None:
        """Learns from a step without prompts. The estimate for a new number of tokens starts from the expected one."""
        self._steps += 1
        if self._steps % _MEMORY == 0:
            self._drop_old()
        old = self.step_seconds(tokens) or seconds
        if tokens not in self._seconds:
            insort(self._sizes, tokens)
        self._seconds[tokens] = moving_average(old, seconds, _FASTER if seconds < old else _SLOWER)
        self._seen[tokens] = self._steps

    def observe_prefill(self, prompt: int, decoded: int, seconds: float) -> None:
        """Learns from a step with `prompt` tokens of prompts, and one token of each of `decoded` sequences."""
        if prompt < _LEAST_PROMPT:
            return
        each = max(seconds - (self.step_seconds(decoded) if decoded else 0.0), 1e-6) / prompt
        old = self.prompt_token_seconds
        self.prompt_token_seconds = each if old is None else moving_average(old, each, _PROMPT_WEIGHT)

    def observe_copy(self, tokens: int, seconds: float) -> None:
        """Learns from a copy of the cells of so many tokens."""
        self._copy_seconds = moving_average(self._copy_seconds, seconds / tokens, _COPY_WEIGHT)

    def _beyond(self, tokens: int) -> float:
        """The estimate for more tokens than in any step so far: each further one costs as much as one of a prompt."""
        if not self._sizes:
            return 0.0
        largest = self._sizes[-1]
        each = self.prompt_token_seconds or _FURTHER_TOKEN * self._seconds[largest] / largest
        return self._seconds[largest] + (tokens - largest) * each

    def _drop_old(self) -> None:
        """Drops the estimates of numbers of tokens that have not occurred for long."""
        self._sizes = [size for size in self._sizes if self._steps - self._seen[size] < _MEMORY]
        self._seconds = {size: self._seconds[size] for size in self._sizes}
