"""Added and special tokens of a Hugging Face folder: `added_tokens.json`, `tokenizer_config.json`, `config.json`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llama_convert.gguf.tensor_types import TokenType
from llama_convert.vocab.vocabulary import ADDED_SCORE, META_SPACE, Vocabulary

_NAMES = ("bos", "eos", "unk", "pad")


def add_tokens(
    vocabulary: Vocabulary, tokenizer: dict[str, Any], config: dict[str, Any], added: dict[str, int]
) -> None:
    """Adds the added tokens to the vocabulary, replacing what it says about them.

    `tokenizer` is `tokenizer.json`, `config` is `tokenizer_config.json`, `added` is `added_tokens.json`; each is empty
    where there is no such file. The file that describes a token best comes last, since the last one wins.
    """
    for text, index in added.items():
        vocabulary.put(int(index), text, TokenType.USER_DEFINED, ADDED_SCORE)
    for index, token in _described(tokenizer, config):
        text = str(token["content"])
        if token.get("special") or _looks_special(text):
            vocabulary.put(index, text, TokenType.CONTROL, ADDED_SCORE)
        else:
            vocabulary.put(index, text.replace(META_SPACE, " "), TokenType.USER_DEFINED, ADDED_SCORE)


def _described(tokenizer: dict[str, Any], config: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    for token in tokenizer.get("added_tokens") or []:
        yield int(token["id"]), token
    for index, token in (config.get("added_tokens_decoder") or {}).items():
        yield int(index), token


def _looks_special(text: str) -> bool:
    """Whether a token looks like a control token: in some models they are not marked as special."""
    return text in ("<pad>", "<mask>") or (text.startswith("<|") and text.endswith("|>"))


def set_special(
    vocabulary: Vocabulary, tokenizer: dict[str, Any], config: dict[str, Any], model_config: dict[str, Any]
) -> None:
    """Finds the ids of bos, eos, unk and pad, and whether the first two are added to a text.

    The token that `tokenizer_config.json` names wins over the id in the model's `config.json`.
    """
    ids = {text: index for index, text in enumerate(vocabulary.tokens)}
    for name in _NAMES:
        text = _token_text(config.get(f"{name}_token"))
        index = ids.get(text) if text is not None else None
        if index is None:
            index = _first(model_config.get(f"{name}_token_id"))
        if index is not None and index >= 0:
            vocabulary.special[name] = index
    for name in ("bos", "eos"):
        flag = _adds(name, tokenizer, config)
        if flag is not None:
            setattr(vocabulary, f"add_{name}", flag)
    if isinstance(config.get("add_prefix_space"), bool):
        vocabulary.add_space_prefix = config["add_prefix_space"]


def _token_text(entry: Any) -> str | None:
    """The text of a token, which is a string or a described token."""
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text if isinstance(text, str) else None


def _first(entry: Any) -> int | None:
    """An id, or the first of several."""
    found = entry[0] if isinstance(entry, list) and entry else entry
    return found if isinstance(found, int) else None


def _adds(name: str, tokenizer: dict[str, Any], config: dict[str, Any]) -> bool | None:
    """Whether the tokenizer puts bos before, or eos after, a text: its template says so, or else its configuration."""
    position = 0 if name == "bos" else -1
    for part in _processors(tokenizer.get("post_processor")):
        single = part.get("single") or []
        if part.get("type") == "TemplateProcessing" and single:
            return "SpecialToken" in single[position]
    flag = config.get(f"add_{name}_token")
    return flag if isinstance(flag, bool) else None


def _processors(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    if not part:
        return []
    return list(part.get("processors") or [part])
