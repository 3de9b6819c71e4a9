"""A chain of llama.cpp's samplers for one sequence."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence as Tokens
from typing import Any

from llama_backend.engine.binding import lib, quick
from llama_backend.engine.sampler import SamplerChain, SamplerSpec

_accept = quick("llama_sampler_accept")


class LlamaSampler:
    """The samplers of a chain, with what they remember of the tokens so far. `free` must be called in the end."""

    __slots__ = ("handle", "is_argmax")

    def __init__(self, chain: SamplerChain, n_vocab: int, vocab: Any, prompt: Tokens[int]) -> None:
        self.is_argmax = chain.is_argmax
        self.handle = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        if chain.bias:
            biases = (lib.llama_logit_bias * len(chain.bias))(*chain.bias)
            lib.llama_sampler_chain_add(self.handle, lib.llama_sampler_init_logit_bias(n_vocab, len(biases), biases))
        for spec in chain.specs:
            lib.llama_sampler_chain_add(self.handle, _native(spec, vocab))
        for token in prompt[-chain.history :] if chain.history else ():
            _accept(self.handle, token)

    def free(self) -> None:
        lib.llama_sampler_free(self.handle)


def _native(spec: SamplerSpec, vocab: Any) -> Any:
    if spec.name == "dry":
        texts = (ctypes.c_char_p * len(spec.texts))(*(text.encode() for text in spec.texts))
        return lib.llama_sampler_init_dry(vocab, *spec.args, texts, len(texts))
    return getattr(lib, f"llama_sampler_init_{spec.name}")(*spec.args)
