"""How the requests to one model ended, and how long they and their tokens took."""

from __future__ import annotations

from collections import Counter
from time import monotonic
from types import TracebackType
from typing import Self

from llama_backend.account import LOCAL, Account
from llama_backend.errors import BackendError
from llama_backend.server.prometheus import Histogram
from llama_backend.wire.ipc import SequenceOutput

# Upper bounds of the histograms' buckets, in seconds.
_WAITS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_GAPS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
_WHOLE = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class RequestMetrics:
    """Counts of all requests to one model, also of those that were refused, and histograms in seconds."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        """Requests by finish reason or by the code of their error."""
        self.accounts: Counter[str] = Counter()
        """Requests by account."""
        self.account_tokens: Counter[str] = Counter()
        """Tokens of the prompts and answers of requests that have ended, by account."""
        self.embedded_tokens = 0
        self.drafted = 0
        """Tokens that speculation drafted for answers that have ended."""
        self.drafts_accepted = 0
        self.queue = Histogram(*_WAITS)
        """Time from the acceptance of a request by the engine to its first step."""
        self.first_token = Histogram(*_WAITS)
        """Time from the arrival of a request to the first text of each of its answers."""
        self.gap = Histogram(*_GAPS)
        """Time between two texts of an answer, which is mostly the time of one token."""
        self.duration = Histogram(*_WHOLE)
        """Time of whole requests."""


class RequestTimer:
    """Times one request from when it is constructed; as a context manager it counts the request at the end."""

    def __init__(self, metrics: RequestMetrics, account: Account = LOCAL) -> None:
        self._metrics = metrics
        self._account = account.name
        self._begin = monotonic()
        self._last: dict[int, float] = {}
        self._reason: str | None = None

    def __call__(self, output: SequenceOutput, now: float) -> None:
        """Takes note of an output that came at `now`, in seconds of `time.monotonic`."""
        number = output.id
        last = self._last.get(number)
        if output.text:
            self._last[number] = now
            if last is None:
                self._metrics.first_token.observe(now - self._begin)
            else:
                self._metrics.gap.observe(now - last)
        if output.finish_reason is not None:
            usage = output.usage
            self.end(output.finish_reason, usage.prompt_tokens if usage else 0, usage.completion_tokens if usage else 0)
            if output.timings is not None:
                self._metrics.queue.observe(output.timings.queue_ms / 1e3)
                self._metrics.drafted += output.timings.draft_n
                self._metrics.drafts_accepted += output.timings.draft_n_accepted

    def end(self, reason: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Notes how an answer ended, and its tokens; the prompt counts once for several answers."""
        tokens = completion_tokens + (0 if self._reason else prompt_tokens)
        self._metrics.account_tokens[self._account] += tokens
        self._reason = reason

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._metrics.outcomes[self._outcome(error)] += 1
        self._metrics.accounts[self._account] += 1
        self._metrics.duration.observe(monotonic() - self._begin)

    def _outcome(self, error: BaseException | None) -> str:
        if isinstance(error, BackendError):
            return error.code
        if isinstance(error, Exception):
            return "error"
        return self._reason or "cancelled"
