"""A model that computes nothing: its next token is a checksum of all tokens in the KV cells of a sequence.

So an answer is right only where every cell that it stands on is right.
"""

from __future__ import annotations

from binascii import crc32
from collections.abc import Callable
from collections.abc import Sequence as Tokens
from dataclasses import dataclass
from random import Random

from llama_backend.account import LOCAL, Account
from llama_backend.engine.batch import Batch, BatchItem
from llama_backend.engine.cost_model import CostModel
from llama_backend.engine.kv.memory import NoRoom
from llama_backend.engine.kv.slots import Slot
from llama_backend.engine.kv.state_store import StateStore
from llama_backend.engine.kv.swap_policy import LEAST_KEPT
from llama_backend.engine.placement.kv_plan import KVPlan
from llama_backend.engine.prompt.detokenizer import Detokenizer
from llama_backend.engine.prompt.vocab import Vocab
from llama_backend.engine.sampling.chain import SamplerChain
from llama_backend.engine.sequence import EngineRequest, Sequence
from llama_backend.engine.speculation.draft_model import DraftModel
from llama_backend.wire.api import SamplingParams
from llama_backend.wire.ipc import SequenceOutput
from tests.support.engine.assembly import Options, assemble
from tests.support.engine.fake_memory import FakeMemory as FakeMemory

N_VOCAB = 1000
EOG = 0
EOG_ONE_IN = 60

FakeModel = Callable[[Tokens[int]], int]


def next_token(tokens: Tokens[int]) -> int:
    """The fake model: a pure function of all tokens before."""
    checksum = crc32(repr(list(tokens)).encode())
    return EOG if checksum % EOG_ONE_IN == 0 else 1 + checksum // EOG_ONE_IN % (N_VOCAB - 1)


def copying_token(tokens: Tokens[int]) -> int:
    """A fake model that mostly says what came after its last token before: a pure function too."""
    checksum = crc32(repr(list(tokens)).encode())
    places = [index for index, token in enumerate(tokens[:-1]) if token == tokens[-1]]
    return tokens[places[-1] + 1] if places and checksum % 12 else next_token(tokens)


def piece(token: int) -> bytes:
    return b"" if token == EOG else f"{token} ".encode()


def fake_vocab() -> Vocab:
    return Vocab(
        size=N_VOCAB,
        piece=piece,
        encode=lambda text: [1 + ord(char) % (N_VOCAB - 1) for char in text],
        is_eog=lambda token: token == EOG,
        control={"<eog>": EOG},
        eos=EOG,
    )


def lone_answer(
    prompt: list[int], max_tokens: int | None, context: int, model: FakeModel = next_token
) -> tuple[str, str]:
    """Text and finish reason that a prompt gets from a fake model when nobody else is there."""
    tokens, text = list(prompt), ""
    while True:
        token = model(tokens)
        if token == EOG:
            return text, "stop"
        tokens.append(token)
        text += piece(token).decode()
        if len(tokens) >= context or len(tokens) - len(prompt) == max_tokens:
            return text, "length"


class FakeRunner:
    """Computes batches on a FakeMemory, and checks each as llama.cpp would."""

    def __init__(
        self, memory: FakeMemory, n_batch: int = 512, failures: Random | None = None, model: FakeModel = next_token
    ) -> None:
        self.memory = memory
        self.model = model
        self.n_batch = n_batch
        self.samplers = 0
        self.no_room = 0
        self.batches: list[Batch] = []
        self._failures = failures
        self._rows: dict[int, int] = {}

    def decode(self, batch: Batch) -> list[int]:
        self._check(batch)
        self.memory.run_copies()
        if not self._has_room(batch) or self._fails():
            self.no_room += 1
            raise NoRoom
        self.batches.append(batch)
        self._rows, rows, end = {}, [], 0
        for item in batch.items:
            seq_id, row = _seq_id(item), end + item.count - 1
            scope, tokens = item.sequence.scope, item.sequence.tokens[item.start : item.start + item.count]
            self.memory.add(seq_id, item.start, tokens, scope)
            if item.wants_logits:
                self._rows[row] = self._next(seq_id)
            for index, token in enumerate(item.draft, 1):
                self.memory.add(seq_id, item.start + item.count + index - 1, [token], scope)
                self._rows[row + index] = self._next(seq_id)
            rows.append(row)
            end = row + 1 + len(item.draft)
        return rows

    def _next(self, seq_id: int) -> int:
        return self.model([cell.token for cell in self.memory.cells_of(seq_id)])

    def _has_room(self, batch: Batch) -> bool:
        if self.memory.unified:
            return self.memory.held(0) + batch.size <= self.memory.capacity
        sizes = {_seq_id(item): item.count + len(item.draft) for item in batch.items}
        return all(self.memory.held(seq_id) + size <= self.memory.capacity for seq_id, size in sizes.items())

    def _fails(self) -> bool:
        """Whether chance lets a batch fail; never that of a sequence that is alone."""
        alone = len(self.memory.occupied) < 2
        return self._failures is not None and not alone and self._failures.random() < 0.1

    def _check(self, batch: Batch) -> None:
        seq_ids = [item.sequence.slot.seq_id for item in batch.items if item.sequence.slot]
        assert len(seq_ids) == len(batch.items)
        assert seq_ids == sorted(set(seq_ids)), "one item for each sequence, in the order of the slots"
        assert all(item.count > 0 for item in batch.items)
        assert sum(item.count for item in batch.items) == batch.prefill + batch.decode
        assert sum(len(item.draft) for item in batch.items) == batch.drafted
        assert batch.size <= self.n_batch
        assert not (batch.drafted and batch.prefill), "drafts take no time from a prompt"

    def new_sampler(self, chain: SamplerChain, prompt: list[int], grammar: str | None = None) -> SamplerChain:
        self.samplers += 1
        return chain

    def free_sampler(self, sampler: SamplerChain) -> None:
        assert isinstance(sampler, SamplerChain)
        self.samplers -= 1

    def sample(self, sampler: SamplerChain, row: int) -> int:
        assert isinstance(sampler, SamplerChain)
        return self._rows[row]

    def logprobs(self, row: int, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
        assert self._rows[row] == token
        return -0.5, [(token - index, -0.5 - index) for index in range(top)]


def _seq_id(item: BatchItem) -> int:
    assert item.sequence.slot is not None
    return item.sequence.slot.seq_id


def new_sequence(
    number: int, tokens: list[int], max_tokens: int | None = None, slot: Slot | None = None, account: Account = LOCAL
) -> Sequence:
    """A sequence that is in no engine."""
    request = EngineRequest(number, tokens, SamplingParams(max_tokens=max_tokens), account=account)
    sequence = Sequence(request, Detokenizer(piece))
    sequence.slot = slot
    return sequence


class FixedCosts(CostModel):
    """A machine on which a token beyond the first of a step costs a fixed part of that step, and a copy nothing."""

    def __init__(self, part: float, step: float = 0.001) -> None:
        """`step` is what a plain one takes, in seconds."""
        super().__init__()
        self.part = part
        self.step = step

    def knows(self, tokens: int) -> bool:
        return True

    def step_seconds(self, tokens: int) -> float:
        return self.step * (1 + self.part * (tokens - 1))

    def copying_pays(self, saved: int, copied: int) -> bool:
        return True


@dataclass
class Answer:
    text: str = ""
    last: SequenceOutput | None = None

    @property
    def reason(self) -> str | None:
        return self.last.finish_reason if self.last else None


class Bench:
    """An engine over the fake model, and what it answered so far."""

    def __init__(
        self,
        *,
        slots: int = 4,
        cells: int = 1000,
        context: int | None = None,
        unified: bool = True,
        refuses_partial: bool = False,
        n_batch: int = 512,
        failures: Random | None = None,
        vocab: Vocab | None = None,
        capacity: int | None = None,
        store: StateStore | None = None,
        model: FakeModel = next_token,
        token_part: float | None = None,
        draft_model: DraftModel | None = None,
        least_kept: int = LEAST_KEPT,
        runner_type: type[FakeRunner] = FakeRunner,
    ) -> None:
        """`token_part` is what a further token of a step costs as a part of it; None is without speculation."""
        self.context = context or (cells if unified else cells // slots)
        capacity = capacity or (cells if unified else cells // slots)
        self.memory = FakeMemory(capacity, unified, refuses_partial)
        self.runner = runner_type(self.memory, n_batch, failures, model)
        self.remembered: list[tuple[str, list[int], bool]] = []
        options = Options(
            speculates=token_part is not None,
            draft_model=draft_model,
            costs=FixedCosts(token_part or 0.0),
            store=store,
            least_kept=least_kept,
        )
        plan = KVPlan(slots, self.context, cells, unified)
        vocab = vocab or fake_vocab()
        self.engine, self.cache = assemble(self.runner, self.memory, plan, vocab, self._remember, options)
        self.answers: dict[int, Answer] = {}

    def _remember(self, text: str, tokens: list[int], stripped: bool, scope: str) -> None:
        self.remembered.append((text, tokens, stripped))

    def submit(
        self,
        number: int,
        prompt: list[int],
        max_tokens: int | None = None,
        stop: str | None = None,
        store: bool = True,
        account: Account = LOCAL,
        scope: str = "",
        top_logprobs: int | None = None,
    ) -> None:
        self.answers[number] = Answer()
        sampling = SamplingParams(max_tokens=max_tokens, stop=stop)
        self.engine.submit(
            EngineRequest(
                number, prompt, sampling, True, top_logprobs=top_logprobs, store=store, account=account, scope=scope
            )
        )

    def step(self) -> None:
        for output in self.engine.step().outputs:
            answer = self.answers[output.id]
            assert answer.last is None, "nothing comes after the last output"
            answer.text += output.text
            answer.last = output if output.finish_reason else None

    def run(self, most_steps: int = 20_000) -> None:
        """Steps until nothing is left to do."""
        self.until(lambda: not self.engine.busy, most_steps)

    def until(self, condition: Callable[[], bool], most_steps: int = 20_000) -> None:
        """Steps until a condition holds."""
        for _ in range(most_steps):
            if condition():
                return
            self.step()
        raise AssertionError(f"still busy after {most_steps} steps")
