"""Answers that repeat a text with one change, and stories: with speculation and without, and beside llama-server.

All programs run at once and answer in turn, one stream at a time, so that a slow moment of the machine hits all;
of each prompt the best of the rounds counts.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.programs import Program, free_port, llama_server, ours, reference_folder, running

CONTEXT, THREADS, ROUNDS = 1024, 2, 2
MAX_TOKENS = {"repeating": 160, "stories": 96}
AUTO, OFF, PLAIN, NGRAMS = "llama-chat, auto", "llama-chat, off", "llama-server", "llama-server, ngram-simple"
NGRAM_OPTIONS = ["--spec-type", "ngram-simple", "--spec-draft-n-max", "64"]
"""llama-server's own speculation without a second model; ngram-simple is the nearest to prompt lookup."""
TOPICS = ("the sea", "a lost key", "two brothers", "an old map")
REPEATED = (
    "change the name Thomas to Peter:\n\nThe old lighthouse stood at the end of the harbor, where the fishing "
    "boats came home every evening. Its keeper, a quiet man named Thomas, lit the lamp at six o'clock and "
    "wrote the weather into a thick blue book. In winter the waves reached the windows, and the children of "
    "the village believed that the tower was singing. One night a storm broke the glass, and the light went "
    "out. Thomas carried a small lantern up the stairs and held it in his hands until the morning. Seven "
    "ships came home that night, and the captain of the last one gave him a silver watch.",
    "make the umbrella blue instead of red:\n\nA train leaves the city at eight in the morning and reaches the "
    "coast at noon. The passengers drink coffee, read newspapers and look at the fields. At the third station "
    "a woman with a red umbrella gets in and sits down beside the window. Nobody speaks to her, but everybody "
    "wonders where she is going on such a sunny day. When the train stops at the sea, she opens the umbrella, "
    "walks down to the beach and waits. After an hour a small white boat comes around the cliff, and an old "
    "man waves to her.",
    "change Monday to Friday:\n\nThe meeting of the garden club took place on Monday in the town hall. Present "
    "were Anna Weber, John Miller and Sarah Cole. The club decided to plant forty roses along the river, to "
    "buy a new pump for the pond, and to open the garden on Sundays from May to September. John Miller told "
    "the members about his visit to the gardens of Kyoto and showed some pictures. Sarah Cole asked for help "
    "with the children's day, and five members offered to come. The next meeting will be in four weeks, on "
    "the first Monday of April.",
    "write bolts instead of nuts:\n\nTo change a wheel, park the car on flat ground and pull the brake. Take "
    "the spare wheel, the jack and the key out of the boot. Loosen the nuts a little while the wheel is still "
    "on the ground. Put the jack under the car and lift it until the wheel turns freely. Take off the nuts "
    "and pull the wheel towards you. Put the spare wheel on, turn the nuts by hand, and let the car down. "
    "Then tighten the nuts one after another, and do not forget to check the pressure of the tyre.",
)
PROMPTS = {
    "repeating": [f"Repeat the following text word for word, but {text}" for text in REPEATED],
    "stories": [f"Tell me a story about {topic}." for topic in TOPICS],
}


def programs(model: Path, reference: Path | None) -> Iterator[tuple[Program, int]]:
    """The programs with their ports."""
    for name in (AUTO, OFF):
        port = free_port()
        yield replace(ours(model, 1, CONTEXT, THREADS, port, speculation=name == AUTO), name=name), port
    if reference is None:
        return
    for name, options in ((PLAIN, []), (NGRAMS, NGRAM_OPTIONS)):
        port = free_port()
        program = llama_server(reference, model, 1, CONTEXT, THREADS, port)
        yield replace(program, name=name, command=program.command + options), port


@dataclass(frozen=True)
class Answer:
    """Tokens behind the first, and the seconds they took."""

    text: str
    tokens: int
    seconds: float

    @property
    def seconds_a_token(self) -> float:
        return self.seconds / self.tokens


def speculation(model: Path, reference: Path | None) -> Iterator[str]:
    """A row for each program: its tokens per second, and how many answers are those of the plain one of its kind."""
    with ExitStack() as stack:
        urls = {each.name: stack.enter_context(running(each, port)) for each, port in programs(model, reference)}
        found = {
            kind: [_best_answers(urls, prompt, MAX_TOKENS[kind]) for prompt in prompts]
            for kind, prompts in PROMPTS.items()
        }
    for name in urls:
        yield f"{name:28} {', '.join(_cell(kind, name, answers) for kind, answers in found.items())}"


def _cell(kind: str, name: str, answers: list[dict[str, Answer]]) -> str:
    rate = sum(each[name].tokens for each in answers) / sum(each[name].seconds for each in answers)
    same = sum(each[name].text == each[_plain(name)].text for each in answers)
    return f"{kind} {rate:.0f} tokens/s ({same} of {len(answers)} answers as without)"


def _plain(name: str) -> str:
    return OFF if name in (AUTO, OFF) else PLAIN


def _best_answers(urls: dict[str, str], prompt: str, limit: int) -> dict[str, Answer]:
    rounds = [{name: _ask(url, prompt, limit) for name, url in urls.items()} for _ in range(ROUNDS)]
    return {name: min((each[name] for each in rounds), key=lambda answer: answer.seconds_a_token) for name in urls}


def _ask(url: str, prompt: str, limit: int) -> Answer:
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": limit, "temperature": 0}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as response:
        answer = json.load(response)
    text, timings = answer["choices"][0]["message"]["content"], answer["timings"]
    return Answer(text, timings["predicted_n"] - 1, timings["predicted_ms"] / 1e3)


if __name__ == "__main__":
    from llama_backend.models.installed import demo_model

    demo = demo_model()
    if demo is None:
        raise SystemExit("the demo model is not installed")
    for row in speculation(demo.path, reference_folder()):
        print(row)
