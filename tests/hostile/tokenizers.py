"""The small files of a checkpoint with senseless values in them, and damaged: all that is read before the weights."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from llama_convert.errors import ConvertError
from llama_convert.llama_checkpoint import open_checkpoint
from llama_convert.output.write_model import plan_layout
from llama_convert.remote_plan import describe_source
from llama_convert.untrusted import MOST_MEMORY
from tests.hostile.bounded import opened
from tests.hostile.mutation import mutated
from tests.hostile.trial import Trial
from tests.support.convert.layouts import TinyLlama, random_weights, write_safetensors

MEMORY = MOST_MEMORY // 2
SECONDS = 30.0
MODEL = TinyLlama(layers=1, width=8, heads=2, kv_heads=1, head_dim=4, inner=4, vocab=8)
"""Everything is refused before its weights are needed, or fits the few that there are."""

_GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_ADDED = [{"id": 7, "content": "<s>", "special": True}]
_MERGES = {"vocab": {"a": 0, "b": 1, "ab": 2, "<unk>": 3}, "merges": [["a", "b"], "a b"], "unk_token": "<unk>"}
FILES: dict[str, dict[str, Any]] = {
    "config.json": MODEL.config(eos_token_id=[2], rope_scaling={"type": "llama3", "factor": 8.0}),
    "tokenizer.json": {
        "model": {"type": "BPE", "byte_fallback": True, **_MERGES},
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [_GPT2]},
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}]},
        "added_tokens": _ADDED,
    },
    "tokenizer_config.json": {
        "bos_token": {"content": "<s>"},
        "added_tokens_decoder": {"7": _ADDED[0]},
        "add_bos_token": True,
        "chat_template": [{"name": "default", "template": "{{ messages }}"}],
    },
    "added_tokens.json": {"<pad>": 6},
    "generation_config.json": {"top_k": 40, "temperature": 0.7},
    "model.safetensors.index.json": {"weight_map": {"model.norm.weight": "model.safetensors"}},
    "chat_template.json": {"chat_template": "{{ messages }}"},
}
_SENSELESS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 10),
    st.sampled_from(
        [2**20 - 1, 2**20, 2**31, 2**64, 10**400, -(2**63), 1e300, -0.0, float("nan"), float("inf"), "", "x" * 10_000]
    ),
    st.sampled_from([[], {}, [[]], [None], {"": None}, ["x"] * 1000, "\x1b[31m", "\u202e", "../x", "a/b", "9" * 5000]),
    st.sampled_from(["default", "linear", "yarn", "llama3", "Sequence", "BPE", "Metaspace", "(a+)+$", "llama"]),
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to each value inside `value`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, inner in items for found in _places(inner, (*path, key)))]


def _put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """`value` with `new` in that place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _put(value[path[0]], path[1:], new)
    return copy


@st.composite
def _changed(draw: st.DrawFn) -> bytes:
    """One of the files with senseless values in one to three places: its name, a zero, its content."""
    name = draw(st.sampled_from(sorted(FILES)))
    content: Any = FILES[name]
    for _ in range(draw(st.integers(1, 3))):
        content = _put(content, draw(st.sampled_from(_places(content))), draw(_SENSELESS))
    return name.encode() + b"\0" + json.dumps(content).encode()


def _field(number: int, wire: int, value: bytes) -> bytes:
    return bytes([number << 3 | wire]) + (bytes([len(value)]) if wire == 2 else b"") + value


def _piece(text: str, kind: int) -> bytes:
    inner = _field(1, 2, text.encode()) + _field(2, 5, struct.pack("<f", -1.0)) + _field(3, 0, bytes([kind]))
    return _field(1, 2, inner)


_TRAINER = _field(2, 2, _field(3, 0, b"\x02") + b"\x98\x02\x01" + b"\xc0\x02\x00")
SENTENCES = b"".join(map(_piece, ["<unk>", "<s>", "</s>", "a", "b", "ab"], [2, 3, 3, 1, 1, 1])) + _TRAINER
"""A SentencePiece model of six pieces."""
_CARDS = st.sampled_from([b"---\nlicense: mit\ntags: [a, b]\nlanguage: [en]\n---\n# x\n", b"---\n- a\n---\n"])
_NAMED = (*sorted(FILES), "chat_template.jinja", "README.md")
CASES = st.one_of(
    _changed(),
    mutated(_changed()),
    mutated(st.just(b"tokenizer.model\0" + SENTENCES)),
    mutated(_CARDS).map(lambda raw: b"README.md\0" + raw),
    st.tuples(st.sampled_from(_NAMED), st.binary(max_size=50)).map(lambda pair: pair[0].encode() + b"\0" + pair[1]),
)


def lay_out(folder: Path) -> None:
    """A whole checkpoint of the smallest size."""
    folder.mkdir(exist_ok=True)
    for name, content in FILES.items():
        (folder / name).write_text(json.dumps(content))
    write_safetensors(folder / "model.safetensors", random_weights(MODEL))


def read(case: bytes, folder: Path) -> object:
    """The checkpoint with one file changed, as `convert` opens it and as `pull` plans it."""
    source = folder / "source"
    lay_out(source)
    name, _, raw = case.partition(b"\0")
    if name.decode("latin-1") not in (*_NAMED, "tokenizer.model"):
        return None
    path = source / name.decode()
    path.write_bytes(raw)
    try:
        with suppress(ConvertError):
            describe_source(source)
        return plan_layout(open_checkpoint(source))
    finally:
        path.unlink()


def _named(name: str, raw: bytes) -> bytes:
    return name.encode() + b"\0" + raw


_REFERENCES = b"".join(b"%c: &%c [*%c, *%c]\n" % (at, at, at - 1, at - 1) for at in range(ord("b"), ord("z")))
_MERGED = b"".join(b"%c: &%c\n  <<: [*%c, *%c]\n" % (at, at, at - 1, at - 1) for at in range(ord("b"), ord("z")))
_NO_SPECIAL = {"type": "BPE", "byte_fallback": True, "vocab": {"a": 2**20 - 1}, "merges": []}
KNOWN = (
    _named("README.md", b"---\na: &a [x, x]\n" + _REFERENCES + b"tags: *y\n---\n"),
    _named("README.md", b"---\na: &a {k: v}\n" + _MERGED + b"---\n"),
    _named("README.md", b"---\ntags: " + b"[" * 60_000 + b"\n---\n"),
    _named("README.md", b"---\n" + b"? " * 30_000 + b"\n---\n"),
    _named("README.md", b"---" + b"\n" * 200_000),
    _named("tokenizer.json", b"[" * 1_000_000),
    _named("tokenizer.json", json.dumps({"model": _NO_SPECIAL}).encode()),
    _named("tokenizer.model", SENTENCES + b"\x0a\0" * 50_000),
    _named("added_tokens.json", b"{" + b",".join(b'"%d": %d' % (at, at) for at in range(50_000)) + b"}"),
    _named("config.json", b'{"a":' + b'[{"a":' * 400 + b"0" + b"}]" * 400 + b"}"),
)
TOKENIZERS = Trial("tokenizers", CASES, opened(read, ConvertError, MEMORY, SECONDS), examples=250, known=KNOWN)
