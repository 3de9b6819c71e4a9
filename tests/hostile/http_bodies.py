"""Bodies of requests to all routes that take one: JSON of every shape in every field, and bytes that are no JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from msgspec import Struct

from llama_backend.wire.api import ChatRequest, CompletionRequest, EmbeddingRequest, TokenizeRequest
from tests.hostile.served import REFUSALS, Served, check_error, served
from tests.hostile.trial import Check, Trial

ROUTES: dict[str, tuple[type[Struct], dict[str, Any]]] = {
    "/v1/chat/completions": (ChatRequest, {"messages": [{"role": "user", "content": "a b"}]}),
    "/v1/completions": (CompletionRequest, {"prompt": "a b"}),
    "/v1/embeddings": (EmbeddingRequest, {"input": "a b"}),
    "/v1/tokenize": (TokenizeRequest, {"prompt": "a b"}),
}
"""What each route reads, and a body that it takes."""
_ENOUGH = 100
"""Of so many cases some must be taken and some refused."""
_EXTRA = ("echo", "functions", "metadata", "response_format", "stream_options", "tools", "user", "unknown", "", "\0")

NUMBERS = [
    *(0, 1, -1, 2, 20, 128, 129, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), 10**40, 10**400),
    *(0.5, -0.0, 1e-320, 1.7e308, 0.1, 2.0, 1.0000000000000002),
]
TEXTS = [
    *("", "a", "a b c", "user", "system", "assistant", "wizard", "json_object", "text", "float", "base64", "fake"),
    *("x" * 5000, "a " * 300, "\0", "\n", "\u2028", "\u202e", "\x1b[2J", "\ud800", "😀", "²", "٣", "NaN", "null"),
    *(
        "9" * 5000,
        "../../etc/passwd",
        "root ::= [a]",
        'root ::= "',
        "<|im_start|>",
        "</s>",
        "[INST]",
        "%n%s",
        "{{7*7}}",
    ),
]


def nested(value: Any) -> Any:
    """A value in forty lists."""
    for _ in range(40):
        value = [value]
    return value


LEAVES = st.sampled_from([*NUMBERS, *TEXTS, None, True, False])
KEYS = st.sampled_from(
    ["role", "content", "text", "type", "schema", "json_schema", "include_usage", "1", "-1", "", "x"]
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=3)
        | inner.map(lambda value: [value] * 50)
        | inner.map(nested)
    ),
    max_leaves=6,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["user", "system", "assistant", "tool", "wizard", "", 5]),
            "content": LEAVES | st.lists(st.fixed_dictionaries({"type": LEAVES, "text": LEAVES}), max_size=3),
            "name": LEAVES,
        },
    ),
    max_size=6,
)
PIECES = st.sampled_from(
    [
        *(b"", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\u", b"\\ud800", b"\0", b"\xff", b"\xed\xa0\x80"),
        *(b"1e999", b"NaN", b"-", b"0" * 5000, b"[" * 5000, b'{"a":' * 5000, b"\xef\xbb\xbf", b"/*", b"\x1e", b"\r\n"),
    ]
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A path, a line feed, and a body that is taken, but for other values in some fields and other bytes in places."""
    path = draw(st.sampled_from(sorted(ROUTES)))
    kind, taken = ROUTES[path]
    names = st.sampled_from([*kind.__struct_fields__, *_EXTRA])
    fields = dict(taken) if draw(st.integers(0, 9)) else {}
    for name in draw(st.lists(names, max_size=3)):
        fields[name] = draw(MESSAGES if name == "messages" and draw(st.booleans()) else VALUES)
    text = bytearray(json.dumps(fields, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        at = draw(st.integers(0, len(text)))
        text[at : at + draw(st.integers(0, 3))] = draw(PIECES | st.binary(max_size=3))
    return path.encode() + b"\n" + bytes(text)


@contextmanager
def opened(folder: Path) -> Iterator[Check]:
    seen: Counter[int] = Counter()
    with served(folder, request_timeout=5.0) as target:
        yield lambda case: seen.update([_try(target, case)])
    assert seen.total() < _ENOUGH or {200, 400} <= seen.keys()


def _try(target: Served, case: bytes) -> int:
    """Sends a case and checks what comes; returns the status."""
    path, _, body = case.partition(b"\n")
    answer = target.client.post(path.decode(), content=body)
    if answer.status_code == 200:
        check_answer(answer.headers["content-type"], answer.content)
    else:
        assert answer.status_code in REFUSALS | {504}, answer.text
        check_error(answer.content)
    target.check()
    return answer.status_code


def check_answer(kind: str, content: bytes) -> None:
    """An answer is JSON, or a stream that ends as one does, perhaps with an error."""
    if kind == "application/json":
        assert "error" not in json.loads(content)
        return
    assert kind == "text/event-stream; charset=utf-8"
    events = [line.removeprefix(b"data: ") for line in content.split(b"\n\n") if line.startswith(b"data: ")]
    if events[-1] != b"[DONE]":
        check_error(events.pop())
    for event in events:
        assert event == b"[DONE]" or json.loads(event)["object"] in ("chat.completion.chunk", "text_completion")


HTTP_BODIES = Trial(
    "http-bodies",
    bodies(),
    opened,
    examples=300,
    known=(
        b'/v1/tokenize\n{"prompt":"a","model":"' + b"x" * 5000 + b'"}',
        b'/v1/chat/completions\n{"messages":[{"role":"a\\nb","content":"a"}]}',
    ),
)
