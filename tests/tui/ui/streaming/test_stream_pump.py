"""What showing an answer costs, as a count: how many pieces reach the screen, whatever comes from the model."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Iterator

import pytest

from llama_chat.ui.streaming.stream_pump import LEAST_SECONDS, MOST_SECONDS, StreamPump


class Screen:
    """Counts what is written; a piece costs `cost` seconds of a processor."""

    def __init__(self, cost: float = 0.0) -> None:
        self.pieces: list[str] = []
        self.times: list[float] = []
        self.spent = 0.0
        self._cost = cost

    def write(self, text: str) -> None:
        self.pieces.append(text)
        self.times.append(asyncio.get_running_loop().time())
        self.spent += self._cost

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def pauses(self) -> list[float]:
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


class SkippingSelector(selectors.SelectSelector):
    """Never waits: the time that it was to wait is added to `now`."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += max(timeout or 0.0, 0.0)
        return super().select(0)


class FastLoop(asyncio.SelectorEventLoop):
    """A loop on which waiting takes no time: its clock jumps to the next timer."""

    def __init__(self) -> None:
        self.selector = SkippingSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


async def stream(pump: StreamPump, tokens: int, per_second: float) -> None:
    for number in range(tokens):
        pump.feed(f"{number} ")
        await asyncio.sleep(1 / per_second)
    pump.flush()


@pytest.fixture
def loop() -> Iterator[FastLoop]:
    loop = FastLoop()
    yield loop
    loop.close()


@pytest.mark.parametrize("per_second", [20, 100, 1000])
def test_no_more_than_a_dozen_pieces_a_second(loop: FastLoop, per_second: float) -> None:
    screen = Screen()
    pump = StreamPump(screen.write, lambda: screen.spent)
    loop.run_until_complete(stream(pump, int(10 * per_second), per_second))
    assert screen.text == "".join(f"{number} " for number in range(int(10 * per_second)))
    assert len(screen.pieces) <= 10 / LEAST_SECONDS + 2
    assert screen.pieces[0] == "0 "


def test_a_screen_that_is_slow_gets_fewer_pieces(loop: FastLoop) -> None:
    screen = Screen(cost=0.03)
    pump = StreamPump(screen.write, lambda: screen.spent, share=0.15)
    loop.run_until_complete(stream(pump, 1000, 100))
    assert screen.pauses[5] == pytest.approx(0.2, abs=0.02)
    assert screen.spent <= 10 * 0.15 + 3 * 0.03


def test_the_longest_pause_has_a_limit(loop: FastLoop) -> None:
    screen = Screen(cost=5.0)
    loop.run_until_complete(stream(StreamPump(screen.write, lambda: screen.spent), 500, 100))
    assert max(screen.pauses) <= MOST_SECONDS + 0.02


def test_single_words_come_at_once(loop: FastLoop) -> None:
    screen = Screen()
    loop.run_until_complete(stream(StreamPump(screen.write, lambda: 0.0), 5, 2))
    assert screen.pieces == ["0 ", "1 ", "2 ", "3 ", "4 "]


async def test_nothing_is_written_for_nothing() -> None:
    screen = Screen()
    pump = StreamPump(screen.write)
    pump.feed("")
    pump.flush()
    await asyncio.sleep(0)
    assert screen.pieces == []
