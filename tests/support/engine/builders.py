"""Prompts without a process for the template."""

from __future__ import annotations

from llama_backend.engine.prompt.builder import PromptBuilder
from llama_backend.engine.prompt.template import LLAMA2, ChatTemplate
from llama_backend.engine.prompt.vocab import Vocab

CONTEXT = 100_000


def prompts_of(vocab: Vocab, source: str | None, context: int = CONTEXT) -> PromptBuilder:
    """A builder whose template is rendered in this process; None is Llama 2's own."""
    template = ChatTemplate(LLAMA2 if source is None else source, vocab.text(vocab.bos), vocab.text(vocab.eos))
    return PromptBuilder(vocab, template, context)
