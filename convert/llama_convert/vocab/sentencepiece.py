"""Reads `tokenizer.model`, a protocol buffer of SentencePiece, without its library.

The fields are those of sentencepiece_model.proto: https://github.com/google/sentencepiece.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path

from llama_convert.errors import CorruptSource, UnsupportedModel
from llama_convert.gguf.tensor_types import TokenType
from llama_convert.untrusted import MOST_TOKENS, read_regular
from llama_convert.vocab.vocabulary import META_SPACE, Vocabulary

_BPE = 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SPECIAL_IDS = {"unk": (40, 0), "bos": (41, 1), "eos": (42, 2), "pad": (43, -1)}

_MOST_BYTES = 16 << 20
"""Bytes of the file; those of 262,144 pieces have a quarter of that."""

Fields = dict[int, int | bytes]


def read_sentencepiece(path: Path) -> Vocabulary:
    """The vocabulary in `path`.

    Raises CorruptSource where the file is not a SentencePiece model or is cut short, and UnsupportedModel where its
    algorithm is not BPE, or it does not have the 256 byte tokens.
    """
    raw = read_regular(path, _MOST_BYTES)
    try:
        pieces, trainer, normalizer = _read_model(raw)
    except (IndexError, struct.error, UnicodeDecodeError, ValueError) as error:
        raise CorruptSource(f"{path}: is not a SentencePiece model, or cut short ({error})") from error
    if not pieces:
        raise CorruptSource(f"{path}: is not a SentencePiece model (for Llama 3, use the Hugging Face layout)")
    if trainer.get(3, 1) != _BPE or not trainer.get(35, 0):
        raise UnsupportedModel(f"{path}: only SentencePiece BPE with byte fallback can be converted")
    vocabulary = Vocabulary("llama", "default", scores=[], add_bos=True, add_eos=False)
    for index, (text, score, kind) in enumerate(pieces):
        user_defined = kind is TokenType.USER_DEFINED
        vocabulary.put(index, text.replace(META_SPACE, " ") if user_defined else text, kind, score)
    _apply_trainer(vocabulary, trainer)
    _apply_normalizer(vocabulary, normalizer)
    return vocabulary


def _apply_trainer(vocabulary: Vocabulary, trainer: Fields) -> None:
    for name, (number, default) in _SPECIAL_IDS.items():
        index = trainer.get(number, default)
        assert isinstance(index, int)
        if 0 <= index < len(vocabulary.tokens):
            vocabulary.special[name] = index


def _apply_normalizer(vocabulary: Vocabulary, normalizer: Fields) -> None:
    if normalizer.get(2):
        vocabulary.warnings.append("the tokenizer normalises text in a way that llama.cpp does not")
    if not normalizer.get(3, 1):
        vocabulary.add_space_prefix = False
    if normalizer.get(4, 1):
        vocabulary.warnings.append("the tokenizer removes extra spaces, which llama.cpp does not")


def _read_model(raw: bytes) -> tuple[list[tuple[str, float, TokenType]], Fields, Fields]:
    pieces: list[tuple[str, float, TokenType]] = []
    trainer: Fields = {}
    normalizer: Fields = {}
    for number, value in _fields(raw):
        if not isinstance(value, bytes):
            continue
        if number == 1:
            pieces.append(_piece(dict(_fields(value))))
        elif number == 2:
            trainer = dict(_fields(value))
        elif number == 3:
            normalizer = dict(_fields(value))
        if len(pieces) > MOST_TOKENS:
            raise ValueError(f"more than {MOST_TOKENS} pieces")
    if any(isinstance(trainer.get(number), bytes) for number, _ in _SPECIAL_IDS.values()):
        raise ValueError("a special token whose id is not a number")
    return pieces, trainer, normalizer


def _piece(fields: Fields) -> tuple[str, float, TokenType]:
    text, score = fields.get(1, b""), fields.get(2, b"\0\0\0\0")
    if not isinstance(text, bytes) or not isinstance(score, bytes):
        raise ValueError("a piece with fields of the wrong type")
    (found,) = struct.unpack("<f", score)
    if not math.isfinite(found):
        raise ValueError("a piece whose score is not a number")
    return text.decode("utf-8"), found, TokenType(int(fields.get(3, 1)))


def _fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The numbered fields of a message; fixed-size values are given as their bytes."""
    offset = 0
    while offset < len(raw):
        tag, offset = _varint(raw, offset)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, offset = _varint(raw, offset)
            yield number, value - (1 << 64) if value >= 1 << 63 else value
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(wire, 0)
        if wire == _BYTES:
            length, offset = _varint(raw, offset)
        elif not length:
            raise ValueError(f"wire type {wire}")
        if offset + length > len(raw):
            raise ValueError("a field reaches past the end")
        yield number, raw[offset : offset + length]
        offset += length


def _varint(raw: bytes, offset: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[offset]
        value |= (byte & 0x7F) << shift
        offset, shift = offset + 1, shift + 7
        if byte < 0x80:
            return value, offset
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
