"""Finds the tokenizer's files in a folder and makes the vocabulary of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llama_convert.errors import CorruptSource, SourceNotFound
from llama_convert.files import read_json
from llama_convert.untrusted import MOST_TOKENIZER
from llama_convert.vocab.sentencepiece import read_sentencepiece
from llama_convert.vocab.special_tokens import add_tokens, set_special
from llama_convert.vocab.tokenizer_json import read_tokenizer
from llama_convert.vocab.vocabulary import Vocabulary

_FILES = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "added_tokens.json")


def load_hf_vocabulary(folder: Path, model_config: dict[str, Any]) -> tuple[Vocabulary, list[Path]]:
    """The vocabulary of a Hugging Face folder, and the files it comes from.

    `tokenizer.model` is used where there is one; else `tokenizer.json`.

    Raises SourceNotFound where there is neither.
    """
    tokenizer = read_json(folder / "tokenizer.json", MOST_TOKENIZER)
    config = read_json(folder / "tokenizer_config.json")
    added = read_json(folder / "added_tokens.json")
    if (folder / "tokenizer.model").exists():
        vocabulary = read_sentencepiece(folder / "tokenizer.model")
    elif tokenizer:
        vocabulary = read_tokenizer(tokenizer, folder / "tokenizer.json")
    else:
        raise SourceNotFound(f"{folder}: holds neither tokenizer.model nor tokenizer.json")
    try:
        add_tokens(vocabulary, tokenizer, config, added)
        set_special(vocabulary, tokenizer, config, model_config)
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise CorruptSource(f"{folder}: the added tokens are broken ({error})") from error
    return vocabulary, [folder / name for name in _FILES if (folder / name).is_file()]


def load_meta_vocabulary(folder: Path) -> tuple[Vocabulary, list[Path]]:
    """The vocabulary of Meta's layout, whose `tokenizer.model` often lies one folder up."""
    for path in (folder / "tokenizer.model", folder.resolve().parent / "tokenizer.model"):
        if path.is_file():
            return read_sentencepiece(path), [path]
    raise SourceNotFound(f"{folder}: tokenizer.model is neither in this folder nor in the one above")
