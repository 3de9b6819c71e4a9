"""Many requests at once on a fake model, with everything that can come between."""

from __future__ import annotations

from random import Random

from llama_backend.engine.kv.state_store import StateStore
from llama_backend.engine.speculation.draft_model import DraftModel, Guesser
from tests.support.engine.fakes import Bench, FakeModel, lone_answer, next_token


def simulate(
    random: Random,
    unified: bool,
    failing: bool,
    store: StateStore | None = None,
    refuses_partial: bool | None = None,
    model: FakeModel = next_token,
    token_part: float | None = None,
    guesser: Guesser | None = None,
) -> Bench:
    """Random requests on a random pool; asserts that everybody got the answer that they get alone."""
    slots = random.randint(1, 6)
    context = random.randint(30, 200)
    cells = random.randint(context, 2 * context) if unified else slots * context
    bench = Bench(
        slots=slots,
        cells=cells,
        context=context,
        unified=unified,
        refuses_partial=random.random() < 0.3 if refuses_partial is None else refuses_partial,
        store=store,
        n_batch=random.randint(max(8, slots), 80),
        failures=random if failing else None,
        model=model,
        token_part=token_part,
        draft_model=DraftModel(guesser, slots) if guesser is not None else None,
        least_kept=4,
    )
    beginnings = [Random(number).choices(range(1, 1000), k=context) for number in range(3)]
    requests: dict[int, tuple[list[int], int | None]] = {}
    cancelled: set[int] = set()
    for number in range(30):
        common = random.choice(beginnings)[: random.randint(0, context // 2)]
        prompt = common + [random.randint(1, 999) for _ in range(random.randint(1, context - 1 - len(common)))]
        requests[number] = (prompt, random.choice([None, random.randint(1, context)]))
        bench.submit(number, *requests[number], store=random.random() < 0.8)
        for _ in range(random.choice([0, 0, 1, 5, 20])):
            bench.step()
        if random.random() < 0.1:
            cancelled.add(number)
            bench.engine.cancel(number)
    bench.run()
    bench.step()
    for number, (prompt, max_tokens) in requests.items():
        answer, (text, reason) = bench.answers[number], lone_answer(prompt, max_tokens, context, model)
        assert answer.reason == reason or (number in cancelled and answer.reason == "cancelled")
        assert answer.text == text if answer.reason != "cancelled" else text.startswith(answer.text)
    assert bench.runner.samplers == 0
    assert failing or bench.runner.no_room == 0
    assert {s.seq_id: s.tokens for s in bench.cache.slots if s.tokens} == {
        seq_id: tokens for seq_id, tokens in bench.memory.cells.items() if tokens
    }
    return bench
