"""The outputs of a step: text for each sequence, and usage and timings at its end."""

from __future__ import annotations

from time import perf_counter

from llama_backend.engine.sequence import Sequence
from llama_backend.errors import BackendError
from llama_backend.wire.api import FinishReason, Timings, Usage
from llama_backend.wire.ipc import SequenceOutput, TokenLogprob


class Outputs:
    """Collects the outputs of the steps."""

    def __init__(self) -> None:
        self._collected: list[SequenceOutput] = []

    def take(self) -> list[SequenceOutput]:
        """The outputs since the last call."""
        taken, self._collected = self._collected, []
        return taken

    def add_text(self, sequence: Sequence, text: str) -> None:
        """Adds a part of an answer."""
        logprobs = None if sequence.logprobs is None else sequence.logprobs.take(text)
        self._collected.append(SequenceOutput(sequence.id, text, logprobs=logprobs))

    def add_end(self, sequence: Sequence, text: str, reason: FinishReason, error: BackendError | None = None) -> None:
        """Adds the last part of an answer; `error` is what went wrong, where the reason is `error`."""
        self._collected.append(
            SequenceOutput(
                sequence.id,
                text,
                reason,
                _usage(sequence),
                _timings(sequence),
                message=error.message if error is not None else None,
                logprobs=_last_logprobs(sequence, text),
                code=error.code if error is not None else None,
            )
        )


def _last_logprobs(sequence: Sequence, text: str) -> list[TokenLogprob] | None:
    if sequence.logprobs is None:
        return None
    return sequence.logprobs.take(text, is_end=not sequence.detokenizer.stopped)


def _usage(sequence: Sequence) -> Usage:
    details = {"cached_tokens": sequence.cached}
    return Usage(sequence.n_prompt, sequence.n_completion, len(sequence.tokens), details)


def _timings(sequence: Sequence) -> Timings:
    clock, now, history = sequence.clock, perf_counter(), sequence.draft_history
    started = clock.started or now
    first = clock.first_token or now
    generating = clock.last_token - clock.first_token
    return Timings(
        queue_ms=round((started - clock.accepted) * 1e3, 3),
        prompt_n=sequence.n_prompt - sequence.cached,
        prompt_ms=round((first - started) * 1e3, 3),
        predicted_n=sequence.n_completion,
        predicted_ms=round(generating * 1e3, 3),
        predicted_per_second=round((sequence.n_completion - 1) / generating, 2) if generating > 0 else 0.0,
        draft_n=history.drafted if history is not None else 0,
        draft_n_accepted=history.accepted if history is not None else 0,
    )
