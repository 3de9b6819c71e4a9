"""A long conversation goes on after a restart of everything: with KV states on disk, and computed again."""

from __future__ import annotations

import json
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.load import WORDS
from tests.bench.programs import free_port, ours, running

_CONTEXT, _THREADS = 4096, 2
_QUESTION_WORDS = 1600
_MAX_TOKENS = 32


@dataclass(frozen=True)
class Reopened:
    """The first token after a restart, in seconds from the request to a server whose model is loaded."""

    tokens: int
    """Of the prompt."""
    kept: float
    kept_computed: int
    """Prompt tokens that were computed although the rest was on disk."""
    again: float
    """Without states on disk."""

    @property
    def row(self) -> str:
        what = f"reopening {self.tokens} tokens after a restart: first token"
        return f"{what} {self.kept:.3f} s ({self.kept_computed} tokens computed), without states {self.again:.2f} s"


def reopen(model: Path, rounds: int = 5) -> Reopened:
    """The best of `rounds`, since whatever else runs on the machine can only slow one down."""
    with tempfile.TemporaryDirectory() as folder:
        messages = [{"role": "user", "content": _question()}]
        _, answer, _ = _asked_of_a_new_server(model, messages, Path(folder))
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "And then?"}]
        kept = [_asked_of_a_new_server(model, messages, Path(folder)) for _ in range(rounds)]
        again, _, _ = _asked_of_a_new_server(model, messages, None)
    best, _, last = min(kept, key=lambda each: each[0])
    return Reopened(last["usage"]["prompt_tokens"], best, last["timings"]["prompt_n"], again)


def _question() -> str:
    return " ".join(f"{WORDS[n % len(WORDS)]}{'.' if n % 11 == 0 else ''}" for n in range(_QUESTION_WORDS))


def _asked_of_a_new_server(
    model: Path, messages: list[dict[str, str]], folder: Path | None
) -> tuple[float, str, dict[str, Any]]:
    port = free_port()
    with running(ours(model, None, _CONTEXT, _THREADS, port, kv_folder=str(folder) if folder else None), port) as url:
        return _ask(url, messages)


def _ask(url: str, messages: list[dict[str, str]]) -> tuple[float, str, dict[str, Any]]:
    """Seconds to the first token, the answer, and the last event."""
    body = {"messages": messages, "max_tokens": _MAX_TOKENS, "temperature": 0, "stream": True}
    body["stream_options"] = {"include_usage": True}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    begin, first, text, last = time.perf_counter(), 0.0, "", dict[str, Any]()
    with urllib.request.urlopen(request) as events:
        for line in events:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            piece = event["choices"][0]["delta"].get("content") if event["choices"] else None
            first = first or (time.perf_counter() - begin if piece else 0.0)
            text += piece or ""
            last |= {name: event[name] for name in ("usage", "timings") if event.get(name)}
    return first, text, last


if __name__ == "__main__":
    from llama_backend.models.installed import demo_model

    found = demo_model()
    if found is None:
        raise SystemExit("the demo model is not installed")
    print(reopen(found.path).row)
