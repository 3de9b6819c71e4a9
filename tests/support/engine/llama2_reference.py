"""Meta's own prompt for Llama 2 chat, written from llama/generation.py, `Llama.chat_completion`.

https://github.com/meta-llama/llama/blob/main/llama/generation.py
"""

from __future__ import annotations

from collections.abc import Callable

Dialog = tuple[str | None, list[str]]
"""A system prompt or None, then what user and assistant say in turns."""

B_INST, E_INST = "[INST]", "[/INST]"
B_SYS, E_SYS = "<<SYS>>\n", "\n<</SYS>>\n\n"


def reference_ids(
    system: str | None, turns: list[str], encode: Callable[[str], list[int]], bos: int, eos: int
) -> list[int]:
    """The ids of a dialog; `encode` is SentencePiece's, without BOS and EOS."""
    if system is not None:
        turns = [B_SYS + system + E_SYS + turns[0], *turns[1:]]
    ids: list[int] = []
    for prompt, answer in zip(turns[::2], turns[1::2], strict=False):
        ids += [bos, *encode(f"{B_INST} {prompt.strip()} {E_INST} {answer.strip()} "), eos]
    return [*ids, bos, *encode(f"{B_INST} {turns[-1].strip()} {E_INST}")]
