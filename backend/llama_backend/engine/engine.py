"""The engine: admit → schedule → decode → sample → deliver."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from time import perf_counter
from typing import Any, Protocol

from llama_backend.account import LOCAL, Account
from llama_backend.crash_notes import CrashNotes
from llama_backend.engine.budget import PrefillBudget
from llama_backend.engine.counters import Tally
from llama_backend.engine.kv.cache import KVCache
from llama_backend.engine.kv.memory import NoRoom
from llama_backend.engine.prompt.detokenizer import Detokenizer
from llama_backend.engine.prompt.vocab import Vocab
from llama_backend.engine.sampling.chain import SamplerChain, chain_of
from llama_backend.engine.sampling.logprobs import LogprobTrail
from llama_backend.engine.scheduler import Batch, BatchItem, Scheduler
from llama_backend.engine.sequence import Sequence, SequenceStatus
from llama_backend.engine.speculation.draft_model import DraftModel
from llama_backend.engine.speculation.speculator import Speculator
from llama_backend.errors import InvalidRequest
from llama_backend.wire.api import FinishReason, SamplingParams, Timings, Usage
from llama_backend.wire.ipc import EngineStats, SequenceOutput, StepDone, TokenLogprob

OnAnswer = Callable[[str, list[int], bool, str], None]
"""Called with the text, the token ids, whether a leading space was left out, and the scope of a finished answer."""
_DEAD_END = "grammar: no token of this model can go on with what it describes"


class DeadEnd(Exception):
    """No token of the vocabulary can come next in what a grammar describes."""


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
        """Raises InvalidRequest for a text that is no grammar."""
        ...

    def free_sampler(self, sampler: Any) -> None: ...

    def sample(self, sampler: Any, row: int) -> int:
        """The next token. Raises DeadEnd."""
        ...

    def logprobs(self, row: int, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
        """Log probability of a token that was sampled from `row`, and ids and those of the `top` likeliest."""
        ...


class LLMEngine:
    """All sequences of one model, a `llama_decode` a step. Not thread-safe: one thread owns it."""

    def __init__(
        self,
        runner: Runner,
        cache: KVCache,
        vocab: Vocab,
        context: int,
        on_answer: OnAnswer,
        notes: CrashNotes | None = None,
        speculate: bool = False,
        draft_model: DraftModel | None = None,
    ) -> None:
        self._runner = runner
        self._vocab = vocab
        self._context = context
        self._on_answer = on_answer
        self._notes = notes or CrashNotes()
        self._budget = PrefillBudget(runner.n_batch)
        self._cache = cache
        self.scheduler = Scheduler(cache, self._budget)
        self._speculator = Speculator(
            cache, self._budget, context, runner.n_batch, vocab.is_eog, speculate, draft_model
        )
        self._sequences: dict[int, Sequence] = {}
        self._pieces: list[SequenceOutput] = []
        self._tally = Tally()

    @property
    def busy(self) -> bool:
        return self.scheduler.busy

    def submit(
        self,
        number: int,
        tokens: list[int],
        sampling: SamplingParams,
        is_chat: bool,
        *,
        top_logprobs: int | None = None,
        store: bool = True,
        account: Account = LOCAL,
        scope: str = "",
    ) -> None:
        """Queues a prompt that is known to fit the context; `store` is whether its KV state may be kept.

        Raises InvalidRequest for what is no grammar.
        """
        suppressed = self._vocab.eog if sampling.ignore_eos else frozenset()
        chain = chain_of(sampling, self._vocab.size, suppressed)
        with self._notes.grammar(number) if sampling.grammar else nullcontext():
            sampler = self._runner.new_sampler(chain, tokens, sampling.grammar)
        sequence = Sequence(
            id=number,
            tokens=list(tokens),
            max_tokens=sampling.limit,
            private=not store,
            account=account,
            scope=scope,
            sampler=sampler,
            has_grammar=sampling.grammar is not None,
            detokenizer=Detokenizer(self._vocab.piece, sampling.stops, is_chat and self._vocab.space_prefix),
        )
        if top_logprobs is not None:
            sequence.logprobs = LogprobTrail(top_logprobs)
        sequence.clock.accepted = perf_counter()
        self._sequences[number] = sequence
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

    def keep_idle(self) -> bool:
        """Puts the state of one idle slot on disk; False where there is none left that is worth it."""
        return self._cache.keep_idle()

    def clear_kv_states(self) -> None:
        """Frees the cells of all idle slots."""
        self._cache.clear_kv_states()
        self._speculator.clear()

    def step(self) -> StepDone:
        """Runs one batch and returns what it brought."""
        begin = perf_counter()
        batch = self.scheduler.schedule()
        self._speculator.extend(batch)
        drafted = self._speculator.draft_seconds
        self._tally.schedule += perf_counter() - begin - (drafted - self._tally.draft)
        self._tally.draft = drafted
        if batch.items:
            self._run(batch, begin)
        self._tally.steps += 1
        self._tally.total += perf_counter() - begin
        pieces, self._pieces = self._pieces, []
        running, waiting = len(self.scheduler.running), len(self.scheduler.waiting)
        return StepDone(outputs=pieces, running=running, waiting=waiting)

    def stats(self) -> EngineStats:
        """What was counted so far, and how the KV cells are used now."""
        tally, cache = self._tally, self._cache
        return EngineStats(
            times=tally.times,
            prompt_tokens=tally.prompt_tokens,
            cached_tokens=tally.cached_tokens,
            generated_tokens=tally.generated_tokens,
            preemptions=self.scheduler.preemptions,
            kv_cells=cache.cells,
            kv_used=cache.used,
            kv_busy=cache.used_by_busy,
            kv_shared=cache.shared,
        )

    def _run(self, batch: Batch, begin: float) -> None:
        self._notes.batch([item.sequence.id for item in batch.items])
        decode_begin = perf_counter()
        try:
            rows = self._runner.decode(batch)
        except NoRoom:
            self._give_way(batch)
            return
        self._observe(batch, perf_counter() - decode_begin)
        self.scheduler.commit(batch)
        before = [len(item.sequence.tokens) for item in batch.items] if batch.drafted else []
        for item, row in zip(batch.items, rows, strict=True):
            if not item.sequence.clock.started:
                item.sequence.clock.started = begin
            if item.draft:
                self._verify(item, row)
            elif item.wants_logits:
                self._advance(item.sequence, row)
        if batch.drafted:
            self._speculator.settle(batch, before)

    def _give_way(self, batch: Batch) -> None:
        """Makes room after llama.cpp found none for a batch."""
        if batch.drafted:
            self._speculator.refuse()
        elif not self.scheduler.shrink():
            self._finish(batch.items[0].sequence, "length")

    def _observe(self, batch: Batch, seconds: float) -> None:
        self._tally.decode += seconds
        if not batch.drafted:
            self._budget.observe(batch.prefill, batch.decode, seconds)
        self._speculator.observe(batch, seconds)

    def _verify(self, item: BatchItem, row: int) -> None:
        """Samples a token from each row as long as what the row before brought is what was drafted."""
        slot = item.sequence.slot
        assert slot is not None
        for offset, drafted in enumerate((*item.draft, None)):
            token = self._advance(item.sequence, row + offset, drafted)
            if token is None or token != drafted:
                break
            self._cache.extend(slot, [token])
        self._cache.settle(slot)

    def _advance(self, sequence: Sequence, row: int, drafted: int | None = None) -> int | None:
        """Samples the next token of a sequence and delivers the text that it makes certain; None at the end."""
        begin = perf_counter()
        try:
            token = self._sample(sequence, row)
        except DeadEnd:
            self._finish(sequence, "error", message=_DEAD_END, code=InvalidRequest.code)
            return None
        now = perf_counter()
        self._tally.sample += now - begin
        if not sequence.clock.first_token:
            sequence.clock.first_token = now
            self._tally.prompt(sequence)
        sequence.clock.last_token = now
        sequence.status = SequenceStatus.DECODE
        if self._vocab.is_eog(token):
            self._finish(sequence, "stop")
            return None
        if sequence.logprobs is not None:
            sequence.logprobs.add(self._logprob(row, token, sequence.logprobs.top))
        sequence.tokens.append(token)
        self._tally.generated_tokens += 1
        self._speculator.advance(sequence, drafted)
        text = sequence.detokenizer.push(token)
        reason = self._reason(sequence)
        if reason is not None:
            self._finish(sequence, reason, text)
            return None
        if text and sequence.logprobs is None:
            self._pieces.append(SequenceOutput(sequence.id, text))
        elif text:
            self._pieces.append(SequenceOutput(sequence.id, text, logprobs=_taken(sequence, text)))
        return token

    def _sample(self, sequence: Sequence, row: int) -> int:
        if not sequence.has_grammar:
            return self._runner.sample(sequence.sampler, row)
        with self._notes.grammar(sequence.id):
            return self._runner.sample(sequence.sampler, row)

    def _logprob(self, row: int, token: int, top: int) -> TokenLogprob:
        piece = self._vocab.piece
        logprob, best = self._runner.logprobs(row, token, top)
        return TokenLogprob(piece(token), logprob, [(piece(other), value) for other, value in best])

    def _reason(self, sequence: Sequence) -> FinishReason | None:
        if sequence.detokenizer.stopped:
            return "stop"
        is_full = len(sequence.tokens) >= self._context
        return "length" if is_full or sequence.remaining == 0 else None

    def _finish(
        self,
        sequence: Sequence,
        reason: FinishReason,
        text: str = "",
        message: str | None = None,
        code: str | None = None,
    ) -> None:
        text += sequence.detokenizer.flush()
        self.scheduler.finish(sequence)
        self._runner.free_sampler(sequence.sampler)
        del self._sequences[sequence.id]
        self._remember(sequence)
        logprobs = _taken(sequence, text, is_end=not sequence.detokenizer.stopped)
        usage, timings = _usage(sequence), _timings(sequence)
        self._pieces.append(SequenceOutput(sequence.id, text, reason, usage, timings, message, logprobs, code))

    def _remember(self, sequence: Sequence) -> None:
        tokens = sequence.tokens[sequence.n_prompt :]
        whole = b"".join(map(self._vocab.piece, tokens)).decode("utf-8", "replace")
        text = sequence.detokenizer.text
        if whole in (text, f" {text}"):
            self._on_answer(text, tokens, whole != text, sequence.scope)


def _taken(sequence: Sequence, text: str, is_end: bool = False) -> list[TokenLogprob] | None:
    return None if sequence.logprobs is None else sequence.logprobs.take(text, is_end)


def _usage(sequence: Sequence) -> Usage:
    details = {"cached_tokens": sequence.cached}
    return Usage(sequence.n_prompt, sequence.n_completion, len(sequence.tokens), details)


def _timings(sequence: Sequence) -> Timings:
    clock, now = sequence.clock, perf_counter()
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
        draft_n=sequence.drafting.drafted if sequence.drafting else 0,
        draft_n_accepted=sequence.drafting.accepted if sequence.drafting else 0,
    )
