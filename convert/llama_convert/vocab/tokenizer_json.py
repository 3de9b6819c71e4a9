"""Reads `tokenizer.json` of the tokenizers library: SentencePiece BPE rebuilt from its merges, and byte-level BPE."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_convert.errors import CorruptSource, UnsupportedModel
from llama_convert.gguf.tensor_types import TokenType
from llama_convert.untrusted import excerpt
from llama_convert.vocab.pretokenizer import pretokenizer_name
from llama_convert.vocab.vocabulary import Vocabulary

_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


def read_tokenizer(tokenizer: dict[str, Any], path: Path) -> Vocabulary:
    """The vocabulary that the parsed `tokenizer.json` describes, without its added tokens.

    Raises UnsupportedModel where the algorithm or the pre-tokenizer is not known, and CorruptSource where
    parts are missing.
    """
    model = tokenizer.get("model")
    if not isinstance(model, dict):
        raise CorruptSource(f"{path}: model is {excerpt(model)}, but should be an object")
    if model.get("type", "BPE") != "BPE":
        kind = excerpt(model["type"])
        raise UnsupportedModel(f"{path}: the tokenizer is of type {kind}, but only BPE can be converted")
    if not isinstance(model.get("vocab"), dict):
        raise CorruptSource(f"{path}: model.vocab is {excerpt(model.get('vocab'))}, but should be an object")
    try:
        vocabulary = _sentencepiece(tokenizer) if model.get("byte_fallback") else _byte_level(tokenizer, path)
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise CorruptSource(f"{path}: a part is missing or broken ({error})") from error
    return vocabulary


def _sentencepiece(tokenizer: dict[str, Any]) -> Vocabulary:
    """A vocabulary that was a SentencePiece model once: BPE over characters, with bytes for what has no token.

    llama.cpp merges by the score of the result, the library by the rank of the pair. The pairs that yield one token
    stand together, so minus the rank of the first of them orders the merges the same way. Tokens that no merge yields
    are single characters, whose score is never compared.
    """
    model = tokenizer["model"]
    vocab: dict[str, int] = model["vocab"]
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(_pairs(model["merges"])):
        ranks.setdefault(left + right, rank)
    vocabulary = Vocabulary("llama", "default", scores=[], add_bos=True, add_eos=False)
    for text, index in sorted(vocab.items(), key=lambda item: item[1]):
        kind = TokenType.BYTE if _BYTE_TOKEN.fullmatch(text) else TokenType.NORMAL
        score = 0.0 if kind is TokenType.BYTE else -float(ranks.get(text, len(ranks)))
        vocabulary.put(index, text, kind, score)
    unknown = vocab.get(model.get("unk_token") or "")
    if unknown is not None:
        vocabulary.put(unknown, vocabulary.tokens[unknown], TokenType.UNKNOWN, 0.0)
        vocabulary.special["unk"] = unknown
    if not _prepends_space(tokenizer):
        vocabulary.add_space_prefix = False
    return vocabulary


def _byte_level(tokenizer: dict[str, Any], path: Path) -> Vocabulary:
    """A byte-level BPE vocabulary, as GPT-2 introduced it."""
    model = tokenizer["model"]
    vocabulary = Vocabulary("gpt2", pretokenizer_name(tokenizer, path), merges=[], add_bos=False, add_eos=False)
    for text, index in sorted(model["vocab"].items(), key=lambda item: item[1]):
        vocabulary.put(index, text, TokenType.NORMAL, 0.0)
    vocabulary.merges = [f"{_escaped(left)} {_escaped(right)}" for left, right in _pairs(model["merges"])]
    vocabulary.add_space_prefix = False
    if tokenizer.get("normalizer"):
        vocabulary.warnings.append("the tokenizer normalises text, which llama.cpp does not")
    return vocabulary


def _pairs(merges: list[Any]) -> Iterator[tuple[str, str]]:
    """The merges, which are strings with a space in older files and lists of two in newer ones."""
    for merge in merges:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield left, right


def _escaped(part: str) -> str:
    """Spaces in a part of a merge, as llama.cpp expects them: shifted by 256, the way of byte-level BPE."""
    return part.replace(" ", chr(ord(" ") + 256))


def _prepends_space(tokenizer: dict[str, Any]) -> bool:
    """Whether a space is put before the text, by a normalizer or by the Metaspace pre-tokenizer."""
    parts = [*_flat(tokenizer.get("normalizer")), *_flat(tokenizer.get("pre_tokenizer"))]
    prepend = any(part.get("type") == "Prepend" for part in parts)
    return prepend or any(
        part.get("type") == "Metaspace" and part.get("prepend_scheme", "always") != "never" for part in parts
    )


def _flat(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A component and those inside it, where it is a sequence."""
    if not part:
        return []
    inner = part.get("normalizers") or part.get("pretokenizers") or []
    return [part] + [found for child in inner for found in _flat(child)]
