"""The engine: schedule → decode → sample → deliver."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from time import perf_counter
from typing import Any, Protocol

from llama_backend.crash_notes import CrashNotes
from llama_backend.engine.batch import Batch, BatchItem, DeadEnd
from llama_backend.engine.budget import PrefillBudget
from llama_backend.engine.cost_model import CostModel
from llama_backend.engine.counters import EngineCounters
from llama_backend.engine.kv.cache import KVCache
from llama_backend.engine.kv.memory import NoRoom
from llama_backend.engine.outputs import Outputs
from llama_backend.engine.prompt.detokenizer import Detokenizer
from llama_backend.engine.prompt.vocab import Vocab
from llama_backend.engine.sampling.chain import SamplerChain, chain_of
from llama_backend.engine.scheduler import Scheduler
from llama_backend.engine.sequence import EngineRequest, Sequence, SequenceStatus
from llama_backend.engine.speculation.speculator import Speculator
from llama_backend.errors import BackendError, InvalidRequest
from llama_backend.wire.api import FinishReason
from llama_backend.wire.ipc import EngineStats, StepDone, TokenLogprob

OnAnswer = Callable[[str, list[int], bool, str], None]
"""Called with a finished answer: its text, its token ids, whether a leading space was left out, and its scope."""
_DEAD_END = "grammar: none of the model's tokens can come next"


class Runner(Protocol):
    """What the engine needs of llama.cpp."""

    @property
    def n_batch(self) -> int:
        """The most tokens of one batch."""
        ...

    def decode(self, batch: Batch) -> list[int]:
        """Computes a batch; returns the row of each item's last token, which those of its draft follow.

        Raises NoRoom.
        """
        ...

    def new_sampler(self, chain: SamplerChain, prompt: list[int], grammar: str | None = None) -> Any:
        """Raises InvalidRequest for a grammar that cannot be read."""
        ...

    def free_sampler(self, sampler: Any) -> None: ...

    def sample(self, sampler: Any, row: int) -> int:
        """The next token. Raises DeadEnd."""
        ...

    def logprobs(self, row: int, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
        """The log probability of a token that was sampled from `row`, and the `top` likeliest ids with theirs."""
        ...


class LLMEngine:
    """Computes all sequences of one model, with one `llama_decode` in each step. Only one thread may use it."""

    def __init__(
        self,
        runner: Runner,
        vocab: Vocab,
        context: int,
        cache: KVCache,
        costs: CostModel,
        speculator: Speculator,
        on_answer: OnAnswer,
        notes: CrashNotes | None = None,
    ) -> None:
        """`context` is the most tokens of a prompt and its answer."""
        self._runner = runner
        self._vocab = vocab
        self._context = context
        self._cache = cache
        self._costs = costs
        self._speculator = speculator
        self._on_answer = on_answer
        self._notes = notes or CrashNotes()
        self.scheduler = Scheduler(cache, PrefillBudget(runner.n_batch, costs))
        self._counters = EngineCounters()
        self._sequences: dict[int, Sequence] = {}
        self._outputs = Outputs()

    @property
    def busy(self) -> bool:
        return self.scheduler.busy

    def submit(self, request: EngineRequest) -> None:
        """Queues a request. Raises InvalidRequest where its grammar cannot be read."""
        sampling, vocab = request.sampling, self._vocab
        chain = chain_of(sampling, vocab.size, vocab.eog if sampling.ignore_eos else frozenset())
        with self._notes.grammar(request.id) if sampling.grammar else nullcontext():
            sampler = self._runner.new_sampler(chain, request.tokens, sampling.grammar)
        detokenizer = Detokenizer(vocab.piece, sampling.stops, request.is_chat and vocab.space_prefix)
        sequence = Sequence(request, detokenizer, sampler)
        sequence.clock.accepted = perf_counter()
        self._sequences[request.id] = sequence
        self.scheduler.add(sequence)

    def cancel(self, number: int) -> None:
        """Ends a sequence at once; its slot is free for the next step."""
        sequence = self._sequences.get(number)
        if sequence is not None:
            self._finish(sequence, "cancelled")

    def cancel_all(self) -> None:
        """Ends all sequences at once."""
        for number in list(self._sequences):
            self.cancel(number)

    def save_idle(self) -> bool:
        """Saves the state of one idle slot on disk; False where no slot is worth saving."""
        return self._cache.save_idle()

    def clear_kv_states(self) -> None:
        """Frees the cells of all idle slots, and those of the draft model."""
        self._cache.clear_kv_states()
        self._speculator.clear()

    def step(self) -> StepDone:
        """Runs one batch and returns its outputs."""
        with self._counters.step:
            batch = self._schedule()
            rows = self._decode(batch) if batch.items else []
            if rows:
                self._sample(batch, rows)
        self._counters.steps += 1
        return self._deliver()

    def stats(self) -> EngineStats:
        """The counters so far, and the present use of the KV cells."""
        counters, cache = self._counters, self._cache
        return EngineStats(
            times=counters.times(self._speculator.draft_seconds),
            prompt_tokens=counters.prompt_tokens,
            cached_tokens=counters.cached_tokens,
            generated_tokens=counters.generated_tokens,
            preemptions=self.scheduler.preemptions,
            kv_cells=cache.cells,
            kv_used=cache.used,
            kv_busy=cache.used_by_busy,
            kv_shared=cache.shared,
        )

    def _schedule(self) -> Batch:
        with self._counters.schedule:
            batch = self.scheduler.schedule()
            self._speculator.extend(batch)
        return batch

    def _decode(self, batch: Batch) -> list[int]:
        """Computes a batch; returns the row of each item's last token, or nothing where there was no room."""
        self._notes.batch([item.sequence.id for item in batch.items])
        try:
            with self._counters.decode:
                rows = self._runner.decode(batch)
        except NoRoom:
            self._give_way(batch)
            return []
        self._observe(batch, self._counters.decode.last)
        self.scheduler.commit(batch)
        return rows

    def _sample(self, batch: Batch, rows: list[int]) -> None:
        """Samples the next tokens of all sequences whose logits were computed."""
        before = [len(item.sequence.tokens) for item in batch.items] if batch.drafted else []
        for item, row in zip(batch.items, rows, strict=True):
            if not item.sequence.clock.started:
                item.sequence.clock.started = self._counters.step.begin
            if item.draft:
                self._verify(item, row)
            elif item.wants_logits:
                self._advance(item.sequence, row)
        if batch.drafted:
            self._speculator.record(batch, before)

    def _deliver(self) -> StepDone:
        running, waiting = len(self.scheduler.running), len(self.scheduler.queue)
        return StepDone(outputs=self._outputs.take(), running=running, waiting=waiting)

    def _give_way(self, batch: Batch) -> None:
        """Makes room after llama.cpp found none for a batch."""
        if batch.drafted:
            self._speculator.refuse()
        elif not self.scheduler.shrink():
            self._finish(batch.items[0].sequence, "length")

    def _observe(self, batch: Batch, seconds: float) -> None:
        if batch.prefill:
            self._costs.observe_prefill(batch.prefill, batch.decode, seconds)
        else:
            self._costs.observe_decode(batch.size, seconds)

    def _verify(self, item: BatchItem, row: int) -> None:
        """Samples a token from each row, until one differs from the drafted token."""
        slot = item.sequence.slot
        assert slot is not None
        for offset, drafted in enumerate((*item.draft, None)):
            token = self._advance(item.sequence, row + offset, drafted)
            if token is None or token != drafted:
                break
            self._cache.extend(slot, [token])
        self._cache.free_rejected(slot)

    def _advance(self, sequence: Sequence, row: int, drafted: int | None = None) -> int | None:
        """Samples the next token of a sequence and outputs the text that is complete with it; None at the end."""
        try:
            token = self._next_token(sequence, row)
        except DeadEnd:
            self._finish(sequence, "error", error=InvalidRequest(_DEAD_END))
            return None
        if self._vocab.is_eog(token):
            self._finish(sequence, "stop")
            return None
        if sequence.logprobs is not None:
            sequence.logprobs.add(self._logprob(row, token, sequence.logprobs.top))
        self._append(sequence, token, drafted)
        return token if self._output(sequence, token) else None

    def _next_token(self, sequence: Sequence, row: int) -> int:
        """Samples the next token and notes the time. Raises DeadEnd."""
        with self._counters.sample:
            if sequence.has_grammar:
                with self._notes.grammar(sequence.id):
                    token = self._runner.sample(sequence.sampler, row)
            else:
                token = self._runner.sample(sequence.sampler, row)
        clock = sequence.clock
        clock.last_token = self._counters.sample.end
        if not clock.first_token:
            clock.first_token = clock.last_token
            self._counters.count_prompt(sequence)
        return token

    def _append(self, sequence: Sequence, token: int, drafted: int | None) -> None:
        """Adds a token to a sequence, whose status is DECODE from now on."""
        sequence.status = SequenceStatus.DECODE
        sequence.tokens.append(token)
        self._counters.generated_tokens += 1
        self._speculator.advance(sequence, drafted)

    def _output(self, sequence: Sequence, token: int) -> bool:
        """Outputs the text that is complete with the last token; False where the answer ends with it."""
        text = sequence.detokenizer.push(token)
        reason = self._end_reason(sequence)
        if reason is not None:
            self._finish(sequence, reason, text)
        elif text:
            self._outputs.add_text(sequence, text)
        return reason is None

    def _logprob(self, row: int, token: int, top: int) -> TokenLogprob:
        piece = self._vocab.piece
        logprob, best = self._runner.logprobs(row, token, top)
        return TokenLogprob(piece(token), logprob, [(piece(other), value) for other, value in best])

    def _end_reason(self, sequence: Sequence) -> FinishReason | None:
        if sequence.detokenizer.stopped:
            return "stop"
        is_full = len(sequence.tokens) >= self._context
        return "length" if is_full or sequence.remaining == 0 else None

    def _finish(
        self, sequence: Sequence, reason: FinishReason, text: str = "", error: BackendError | None = None
    ) -> None:
        """Ends a sequence and frees what it used; `text` is the text that is complete with its last token."""
        text += sequence.detokenizer.flush()
        self.scheduler.finish(sequence)
        self._runner.free_sampler(sequence.sampler)
        del self._sequences[sequence.id]
        self._report_answer(sequence)
        self._outputs.add_end(sequence, text, reason, error)

    def _report_answer(self, sequence: Sequence) -> None:
        """Reports an answer if its text is exactly that of its tokens, so that the next prompt gets the same tokens."""
        tokens = sequence.tokens[sequence.n_prompt :]
        whole = b"".join(map(self._vocab.piece, tokens)).decode("utf-8", "replace")
        text = sequence.detokenizer.text
        if whole in (text, f" {text}"):
            self._on_answer(text, tokens, whole != text, sequence.scope)
