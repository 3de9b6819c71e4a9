"""Log probabilities in OpenAI's formats for chats and for text completions."""

from __future__ import annotations

import codecs
from typing import Any

from llama_backend.wire.ipc import TokenLogprob


def chat_logprobs(entries: list[TokenLogprob] | None) -> dict[str, Any] | None:
    """The `logprobs` of a choice of a chat; None where none were asked for."""
    if entries is None:
        return None
    return {"content": [_chat_entry(entry) for entry in entries], "refusal": None}


def _chat_entry(entry: TokenLogprob) -> dict[str, Any]:
    top = [_chat_token(token, logprob) for token, logprob in entry.top]
    return _chat_token(entry.token, entry.logprob) | {"top_logprobs": top}


def _chat_token(token: bytes, logprob: float) -> dict[str, Any]:
    return {"token": _text(token, ""), "logprob": logprob, "bytes": list(token)}


class TextLogprobs:
    """Writes the `logprobs` of one text completion, with the character at which each token begins."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def write(self, entries: list[TokenLogprob] | None) -> dict[str, Any] | None:
        """The `logprobs` of these tokens; None where none were asked for."""
        if entries is None:
            return None
        return {
            "tokens": [_text(entry.token, "bytes:") for entry in entries],
            "token_logprobs": [entry.logprob for entry in entries],
            "top_logprobs": [{_text(token, "bytes:"): value for token, value in entry.top} for entry in entries],
            "text_offset": [self._advance(entry.token) for entry in entries],
        }

    def _advance(self, token: bytes) -> int:
        offset = self._offset
        self._offset += len(self._decoder.decode(token))
        return offset


def _text(token: bytes, prefix: str) -> str:
    """A token's text, or its bytes in hexadecimal where they are not whole characters."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return prefix + "".join(f"\\x{byte:02x}" for byte in token)
