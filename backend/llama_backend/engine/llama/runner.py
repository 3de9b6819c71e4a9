"""A context of llama.cpp: decodes batches, samples, and holds the KV cells. Only one thread may use it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from mmap import mmap
from time import perf_counter, process_time
from typing import Any

import numpy as np
import numpy.typing as npt

from llama_backend.engine.batch import Batch
from llama_backend.engine.kv.memory import Bytes, NoRoom
from llama_backend.engine.llama.batch_arrays import BatchArrays, pointer_to
from llama_backend.engine.llama.binding import lib, quick
from llama_backend.engine.llama.grammar import Candidates
from llama_backend.engine.llama.log_softmax import log_softmax_of
from llama_backend.engine.llama.model import Model
from llama_backend.engine.llama.sampler import LlamaSampler
from llama_backend.engine.placement.kv_plan import KVPlan
from llama_backend.engine.placement.thread_tuner import ThreadTuner
from llama_backend.engine.sampling.chain import SamplerChain
from llama_backend.errors import ModelUnreadable

_NO_ROOM = 1
"""What `llama_decode` returns where no KV cells are free (llama.h)."""
_TYPES = {"f16": lib.GGML_TYPE_F16, "q8_0": lib.GGML_TYPE_Q8_0, "q4_0": lib.GGML_TYPE_Q4_0}
_FLASH = {True: lib.LLAMA_FLASH_ATTN_TYPE_AUTO, False: lib.LLAMA_FLASH_ATTN_TYPE_DISABLED}


class DecodeError(Exception):
    """`llama_decode` failed, for another reason than a lack of KV cells."""


class ModelRunner:
    """The Runner of the engine and the KVMemory of its cache: a context over a Model."""

    def __init__(
        self, model: Model, plan: KVPlan, threads: int, tuner: ThreadTuner | None = None, most_drafted: int = 0
    ) -> None:
        """`tuner` changes the number of threads by the times of steps. `most_drafted` tokens of a batch may be drafts.

        Raises ModelUnreadable where llama.cpp cannot make the context.
        """
        self._threads, self._tuner = threads, tuner
        self.meanwhile: Callable[[], None] | None = None
        """Called after a batch was handed to llama.cpp, which does not wait for the results of a GPU."""
        self._context = lib.llama_init_from_model(model.handle, _parameters(plan, threads, most_drafted))
        if not self._context:
            what = f"a context of {plan.cells} tokens with KV cells of type {plan.kv_type}"
            raise ModelUnreadable(f"llama.cpp cannot make {what}; try a smaller --ctx-size, or --kv-type f16")
        self._memory = lib.llama_get_memory(self._context)
        self._unified = plan.unified
        self._n_vocab = model.vocab.size
        self._end = min(model.vocab.eog, default=None) if model.vocab.eos is None else model.vocab.eos
        self._candidates = Candidates(self._n_vocab)
        self._vocab = lib.llama_model_get_vocab(model.handle)
        self.n_batch = int(lib.llama_n_batch(self._context))
        self.can_share = model.supports_partial_removal
        self._queued: set[int] = set()
        """Sequences that queued copies read or write; the next `llama_decode` runs these."""
        self._arrays = BatchArrays(self.n_batch)
        self._sample = quick("llama_sampler_sample")
        self._logits = quick("llama_get_logits_ith")
        self._seq_rm = quick("llama_memory_seq_rm")

    def decode(self, batch: Batch) -> list[int]:
        """See Runner. Raises NoRoom, DecodeError."""
        rows = self._arrays.fill(batch)
        self._compute()
        return rows

    def _compute(self) -> None:
        """Computes what the arrays hold. Raises NoRoom, DecodeError."""
        begin, processor_begin = perf_counter(), process_time()
        code = lib.llama_decode(self._context, self._arrays.struct)
        self._queued.clear()
        if code == _NO_ROOM:
            raise NoRoom
        if code != 0:
            raise DecodeError(f"llama_decode returned {code}")
        if self.meanwhile is not None:
            self.meanwhile()
        lib.llama_synchronize(self._context)
        if self._tuner is not None:
            self._tune(self._tuner, perf_counter() - begin, process_time() - processor_begin)

    def _tune(self, tuner: ThreadTuner, seconds: float, processor_seconds: float) -> None:
        self._use(tuner.observe(self._arrays.struct.n_tokens, seconds, processor_seconds))

    def _use(self, threads: int) -> None:
        if threads != self._threads:
            self._threads = threads
            lib.llama_set_n_threads(self._context, threads, threads)

    def remove(self, seq_id: int, start: int) -> bool:
        """See KVMemory."""
        return bool(self._seq_rm(self._memory, seq_id, start, -1))

    def share(self, source: int, target: int, length: int) -> None:
        """See KVMemory. Where sequences have streams, llama.cpp copies a whole stream, so the rest is removed."""
        if self._unified:
            lib.llama_memory_seq_cp(self._memory, source, target, 0, length)
        else:
            lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)
            self.remove(target, length)
            self._queued |= {source, target}

    def has_queued_copy(self, seq_id: int) -> bool:
        """See KVMemory."""
        return seq_id in self._queued

    def dump(self, seq_id: int) -> Bytes | None:
        """See KVMemory. The state gets memory pages of its own, since freed states would leave holes in the heap."""
        assert seq_id not in self._queued, "a queued copy has yet to run"
        size = lib.llama_state_seq_get_size(self._context, seq_id)
        data = np.frombuffer(mmap(-1, max(size, 1)), np.uint8)[:size]
        if not size or lib.llama_state_seq_get_data(self._context, _bytes_of(data), size, seq_id) != size:
            return None
        return data.data

    def load(self, seq_id: int, data: Bytes, length: int) -> bool:
        """See KVMemory."""
        assert seq_id not in self._queued, "a queued copy has yet to run"
        array = np.frombuffer(data, np.uint8)
        taken = lib.llama_state_seq_set_data(self._context, _bytes_of(array), len(array), seq_id)
        if taken == len(array) and self.length(seq_id) == length:
            return True
        self.remove(seq_id, 0)
        return False

    def length(self, seq_id: int) -> int:
        """Tokens of a sequence that have cells."""
        return int(lib.llama_memory_seq_pos_max(self._memory, seq_id)) + 1

    def warm_up(self, token: int) -> None:
        """Decodes one token, so that the weights are in memory and the graph is built. Raises ModelUnreadable."""
        self._arrays.put([(0, 0, [token])])
        if lib.llama_decode(self._context, self._arrays.struct) != 0:
            raise ModelUnreadable("llama.cpp loads the model but cannot compute with it")
        self.remove(0, 0)

    def new_sampler(self, chain: SamplerChain, prompt: list[int], grammar: str | None = None) -> LlamaSampler:
        """See Runner. Raises InvalidRequest for a grammar that cannot be parsed."""
        return LlamaSampler(chain, self._vocab, prompt, grammar, self._end)

    def free_sampler(self, sampler: LlamaSampler) -> None:
        """See Runner."""
        sampler.free()

    def sample(self, sampler: LlamaSampler, row: int) -> int:
        """The next token of the sequence whose logits are in `row` of the last batch. Raises DeadEnd."""
        if sampler.grammar is not None:
            return sampler.constrained(self._row(row), self._candidates)
        if sampler.is_argmax:
            return int(self._row(row).argmax())
        return int(self._sample(sampler.handle, self._context, row))

    def close(self) -> None:
        """Frees the context; nothing else may be called afterwards."""
        lib.llama_free(self._context)

    def logprobs(self, row: int, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
        """See `log_softmax_of`."""
        return log_softmax_of(self._row(row), token, top)

    def _row(self, row: int) -> npt.NDArray[np.float32]:
        return np.ctypeslib.as_array(self._logits(self._context, row), (self._n_vocab,))


def _parameters(plan: KVPlan, threads: int, most_drafted: int) -> Any:
    """llama.cpp's parameters for a context."""
    params = lib.llama_context_default_params()
    params.n_ctx = plan.cells
    params.n_seq_max = plan.slots
    params.n_outputs_max = plan.slots + most_drafted
    params.n_batch, params.n_ubatch = plan.batch, plan.ubatch
    params.kv_unified = plan.unified
    params.type_k = params.type_v = _TYPES[plan.kv_type]
    params.flash_attn_type = _FLASH[plan.flash_attention]
    params.n_threads = params.n_threads_batch = threads
    return params


def _bytes_of(array: npt.NDArray[np.uint8]) -> Any:
    return pointer_to(array, ctypes.POINTER(ctypes.c_uint8))
