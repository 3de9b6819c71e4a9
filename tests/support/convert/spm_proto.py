"""Writes a SentencePiece model from a list of pieces, the other way round than the converter reads it."""

from __future__ import annotations

import struct

from llama_convert.gguf.reader import GGUFFile


def model_of(file: GGUFFile) -> bytes:
    """The `tokenizer.model` that a GGUF file's vocabulary came from."""
    tokens, scores, types = (file.get(f"tokenizer.ggml.{name}") for name in ("tokens", "scores", "token_type"))
    pieces = b"".join(_message(1, _piece(*entry)) for entry in zip(tokens, scores, types, strict=True))
    trainer = _number(3, 2) + _number(35, 1)
    normalizer = _message(1, b"identity") + _number(3, 1) + _number(4, 0) + _number(5, 1)
    return pieces + _message(2, trainer) + _message(3, normalizer)


def _piece(text: str, score: float, kind: int) -> bytes:
    return _message(1, text.encode()) + _varint(2 << 3 | 5) + struct.pack("<f", score) + _number(3, kind)


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
