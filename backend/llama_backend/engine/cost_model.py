"""What steps of a model and copies of its KV cells cost, learned from those that were run."""

from __future__ import annotations

from bisect import bisect_left, insort

from llama_backend.engine.moving_average import moving_average

_FASTER, _SLOWER = 0.3, 0.1
"""Weights of a step that took less, or more, than was expected: other processes can only make a step longer, and
mostly soon stop."""
_MEMORY = 512
"""A size that did not occur for as many steps is forgotten."""
_FRESH = 64
"""A size that did not occur for as many steps has to be seen again before others are compared with it."""
_FURTHER_TOKEN = 0.5
"""What a further token is taken to cost, as a part of the average one, where nothing is known."""
_PROMPT_WEIGHT = 0.5
_LEAST_PROMPT = 16
"""Prompt tokens that a step must have for its time to say what a prompt token costs."""
_COPY_WEIGHT = 0.3
_COPY_SECONDS = 1.5e-5
"""What copying the cells of a token takes, until it is known."""
_TOKEN_SECONDS = 1e-3
"""What computing a token of a prompt takes, until it is known."""


class CostModel:
    """Seconds of steps and copies; the budget of prompts, the KV cache and speculation all decide by it.

    In steps that only decode, twice the tokens may cost nothing more (on a GPU that waits for its memory) or twice as
    much (on a CPU). So there is an estimate for each number of tokens; what lies between two is interpolated.
    """

    def __init__(self) -> None:
        self.prompt_token_seconds: float | None = None
        """What a token of a prompt costs, where that is known."""
        self._copy_seconds = _COPY_SECONDS
        self._seconds: dict[int, float] = {}
        self._seen: dict[int, int] = {}
        self._sizes: list[int] = []
        self._steps = 0

    def knows(self, tokens: int) -> bool:
        """Whether a step that decodes as many tokens was seen, and not too long ago."""
        return self._steps - self._seen.get(tokens, -_FRESH) < _FRESH

    def step_seconds(self, tokens: int) -> float:
        """What a step that decodes `tokens` takes; 0 where nothing is known yet."""
        if tokens in self._seconds:
            return self._seconds[tokens]
        at = bisect_left(self._sizes, tokens)
        if at == len(self._sizes):
            return self._beyond(tokens)
        above = self._sizes[at]
        below, least = (self._sizes[at - 1], self._seconds[self._sizes[at - 1]]) if at else (0, 0.0)
        return least + (tokens - below) / (above - below) * (self._seconds[above] - least)

    def copying_pays(self, saved: int, copied: int) -> bool:
        """Whether computing `saved` tokens takes longer than copying the cells of `copied`."""
        return saved * (self.prompt_token_seconds or _TOKEN_SECONDS) > copied * self._copy_seconds

    def observe_decode(self, tokens: int, seconds: float) -> None:
        """Takes in a step without prompts. The estimate of a new size starts from what was expected of it."""
        self._steps += 1
        if self._steps % _MEMORY == 0:
            self._forget()
        old = self.step_seconds(tokens) or seconds
        if tokens not in self._seconds:
            insort(self._sizes, tokens)
        self._seconds[tokens] = moving_average(old, seconds, _FASTER if seconds < old else _SLOWER)
        self._seen[tokens] = self._steps

    def observe_prefill(self, prompt: int, decoded: int, seconds: float) -> None:
        """Takes in a step with `prompt` tokens of prompts beside `decoded` single ones."""
        if prompt < _LEAST_PROMPT:
            return
        each = max(seconds - (self.step_seconds(decoded) if decoded else 0.0), 1e-6) / prompt
        old = self.prompt_token_seconds
        self.prompt_token_seconds = each if old is None else moving_average(old, each, _PROMPT_WEIGHT)

    def observe_copy(self, tokens: int, seconds: float) -> None:
        """Takes in the copy of as many tokens' cells."""
        self._copy_seconds = moving_average(self._copy_seconds, seconds / tokens, _COPY_WEIGHT)

    def _beyond(self, tokens: int) -> float:
        """The estimate for more tokens than were ever seen: each further one costs what one of a prompt does."""
        if not self._sizes:
            return 0.0
        largest = self._sizes[-1]
        each = self.prompt_token_seconds or _FURTHER_TOKEN * self._seconds[largest] / largest
        return self._seconds[largest] + (tokens - largest) * each

    def _forget(self) -> None:
        self._sizes = [size for size in self._sizes if self._steps - self._seen[size] < _MEMORY]
        self._seconds = {size: self._seconds[size] for size in self._sizes}
