"""Answers that repeat a text with one change, and stories: with speculation and without, and beside llama-server.

All programs run at once and answer in turn, one stream at a time, so that a slow moment of the machine hits all;
of each prompt the best of the rounds counts.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tests.bench.programs import Program, free_port, llama_server, ours, reference_folder, running

CONTEXT, THREADS, ROUNDS, MAX_TOKENS = 1024, 2, 2, 160
NGRAMS = ["--spec-type", "ngram-simple", "--spec-draft-n-max", "64"]
"""llama-server's own speculation without a second model; ngram-simple is the nearest to prompt lookup."""
TOPICS = ("the sea", "a lost key", "two brothers", "a train", "an old map")
REPEATED = (
    "change the name Thomas to Peter:\n\nThe old lighthouse stood at the end of the harbor, where the fishing boats came "
    "home every evening. Its keeper, a quiet man named Thomas, lit the lamp at six o'clock and wrote the weather into a "
    "thick blue book. In winter the waves reached the windows, and the children of the village believed that the tower "
    "was singing. One night a storm broke the glass, and the light went out. Thomas carried a small lantern up the "
    "stairs and held it in his hands until the morning. Seven ships came home that night, and the captain of the last "
    "one gave him a silver watch.",
    "make the umbrella blue instead of red:\n\nA train leaves the city at eight in the morning and reaches the coast at "
    "noon. The passengers drink coffee, read newspapers and look at the fields. At the third station a woman with a red "
    "umbrella gets in and sits down beside the window. Nobody speaks to her, but everybody wonders where she is going on "
    "such a sunny day. When the train stops at the sea, she opens the umbrella, walks down to the beach and waits. After "
    "an hour a small white boat comes around the cliff, and an old man waves to her.",
    "change Monday to Friday:\n\nThe meeting of the garden club took place on Monday in the town hall. Present were Anna "
    "Weber, John Miller and Sarah Cole. The club decided to plant forty roses along the river, to buy a new pump for the "
    "pond, and to open the garden on Sundays from May to September. John Miller told the members about his visit to the "
    "gardens of Kyoto and showed some pictures. Sarah Cole asked for help with the children's day, and five members "
    "offered to come. The next meeting will be in four weeks, on the first Monday of April.",
    "write bolts instead of nuts:\n\nTo change a wheel, park the car on flat ground and pull the brake. Take the spare "
    "wheel, the jack and the key out of the boot. Loosen the nuts a little while the wheel is still on the ground. Put "
    "the jack under the car and lift it until the wheel turns freely. Take off the nuts and pull the wheel towards you. "
    "Put the spare wheel on, turn the nuts by hand, and let the car down. Then tighten the nuts one after another, and "
    "do not forget to check the pressure of the tyre.",
)
PROMPTS = {
    "repeating": [f"Repeat the following text word for word, but {text}" for text in REPEATED],
    "stories": [f"Tell me a story about {topic}." for topic in TOPICS],
}


def programs(model: Path, reference: Path | None) -> Iterator[tuple[Program, int]]:
    """The programs with their ports."""
    for speculation in (True, False):
        port = free_port()
        name = f"llama-chat, speculation {'auto' if speculation else 'off'}"
        yield replace(ours(model, 1, CONTEXT, THREADS, port, speculation=speculation), name=name), port
    for options in ([], NGRAMS) if reference is not None else ():
        port = free_port()
        program = llama_server(reference, model, 1, CONTEXT, THREADS, port)
        name = f"llama-server{', ngram-simple' if options else ''}"
        yield replace(program, name=name, command=program.command + options), port


def speculation(model: Path, reference: Path | None) -> Iterator[str]:
    """A row for each program, with its tokens per second."""
    with ExitStack() as stack:
        urls = {each.name: stack.enter_context(running(each, port)) for each, port in programs(model, reference)}
        found = {kind: _measure(urls, prompts) for kind, prompts in PROMPTS.items()}
    for name in urls:
        rates = ", ".join(f"{kind} {rates[name]:.0f} tokens/s" for kind, rates in found.items())
        yield f"{name:28} {rates}"


def _measure(urls: dict[str, str], prompts: list[str]) -> dict[str, float]:
    tokens, seconds = dict.fromkeys(urls, 0), dict.fromkeys(urls, 0.0)
    for prompt in prompts:
        answers = [(name, _ask(url, prompt)) for _ in range(ROUNDS) for name, url in urls.items()]
        for name in urls:
            best = min((answer for other, answer in answers if other == name), key=lambda each: each[1] / each[0])
            tokens[name] += best[0]
            seconds[name] += best[1]
    return {name: tokens[name] / seconds[name] for name in urls}


def _ask(url: str, prompt: str) -> tuple[int, float]:
    """Tokens of an answer behind the first, and the seconds they took."""
    body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": MAX_TOKENS, "temperature": 0}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        timings = json.load(answer)["timings"]
    return timings["predicted_n"] - 1, timings["predicted_ms"] / 1e3


if __name__ == "__main__":
    from llama_backend.models import demo_model

    demo = demo_model()
    if demo is None:
        raise SystemExit("the demo model is not installed")
    for row in speculation(demo.path, reference_folder()):
        print(row)
