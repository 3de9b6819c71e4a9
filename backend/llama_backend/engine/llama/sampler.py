"""A chain of llama.cpp's samplers for one sequence, and its grammar."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence as Tokens
from typing import Any

import numpy as np
import numpy.typing as npt

from llama_backend.engine.batch import DeadEnd
from llama_backend.engine.llama.binding import lib, quick
from llama_backend.engine.llama.grammar import Candidates, Grammar
from llama_backend.engine.sampling.chain import SamplerChain, SamplerSpec

_accept = quick("llama_sampler_accept")


class LlamaSampler:
    """The samplers of a chain, with the tokens that they have seen. `free` must be called at the end.

    `vocab` is the address of llama.cpp's vocabulary; `end` is a token that ends an answer. Raises InvalidRequest for
    a grammar that cannot be parsed.
    """

    __slots__ = ("_end", "grammar", "handle", "is_argmax")

    def __init__(
        self, chain: SamplerChain, vocab: int, prompt: Tokens[int], grammar: str | None = None, end: int | None = None
    ) -> None:
        self.grammar = Grammar(vocab, grammar) if grammar else None
        self.is_argmax = chain.is_argmax
        self._end = end
        self.handle = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        if chain.bias:
            biases = (lib.llama_logit_bias * len(chain.bias))(*chain.bias)
            n_vocab = lib.llama_vocab_n_tokens(vocab)
            lib.llama_sampler_chain_add(self.handle, lib.llama_sampler_init_logit_bias(n_vocab, len(biases), biases))
        for spec in chain.specs:
            lib.llama_sampler_chain_add(self.handle, _native(spec, vocab))
        for token in prompt[-chain.history :] if chain.history else ():
            _accept(self.handle, token)

    def constrained(self, logits: npt.NDArray[np.float32], candidates: Candidates) -> int:
        """The next token that the grammar allows. Raises DeadEnd where it allows none.

        As in llama-server, a token is first chosen among all tokens. Only if the grammar forbids it, another is chosen
        among those that the grammar allows.
        """
        grammar = self.grammar
        assert grammar is not None
        token = int(logits.argmax()) if self.is_argmax else self._choose(logits, candidates)
        if not grammar.allows(token):
            token = self._choose(logits, candidates, grammar)
        if not grammar.allows(token):
            if self._end is None or not grammar.allows(self._end):
                raise DeadEnd
            token = self._end
        grammar.accept(token)
        _accept(self.handle, token)
        return token

    def _choose(self, logits: npt.NDArray[np.float32], candidates: Candidates, grammar: Grammar | None = None) -> int:
        candidates.fill(logits)
        if grammar is not None:
            grammar.mask(candidates)
        lib.llama_sampler_apply(self.handle, candidates.reference)
        return candidates.selected

    def free(self) -> None:
        """Frees the samplers and the grammar; nothing else may be called afterwards."""
        lib.llama_sampler_free(self.handle)
        if self.grammar is not None:
            self.grammar.free()


def _native(spec: SamplerSpec, vocab: int) -> Any:
    """llama.cpp's sampler for a spec."""
    if spec.name == "dry":
        texts = (ctypes.c_char_p * len(spec.texts))(*(text.encode() for text in spec.texts))
        return lib.llama_sampler_init_dry(vocab, *spec.args, texts, len(texts))
    return getattr(lib, f"llama_sampler_init_{spec.name}")(*spec.args)
