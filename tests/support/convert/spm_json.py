"""A SentencePiece model as the `tokenizer.json` that transformers makes of it, for models that come with no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sentencepiece


def tokenizer_json(path: Path) -> dict[str, Any]:
    """BPE with byte fallback; the merges are generated from the pieces and ordered by the score of their result."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    pieces = [model.IdToPiece(index) for index in range(model.vocab_size())]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    special = [index for index in range(len(pieces)) if model.IsControl(index) or model.IsUnknown(index)]
    return {
        "version": "1.0",
        "added_tokens": [_added(index, pieces[index]) for index in special],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "ByteFallback"},
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocab,
            "merges": _merges(model, pieces, vocab),
        },
    }


def _merges(model: Any, pieces: list[str], vocab: dict[str, int]) -> list[list[str]]:
    found = []
    for index, piece in enumerate(pieces):
        if model.IsByte(index) or model.IsControl(index) or model.IsUnknown(index):
            continue
        pairs = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        local = sorted((vocab[left], vocab[right]) for left, right in pairs if left in vocab and right in vocab)
        found += [(-model.GetScore(index), [pieces[left], pieces[right]]) for left, right in local]
    return [pair for _, pair in sorted(found, key=lambda item: item[0])]


def _added(index: int, text: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": text, "special": True, **flags}
