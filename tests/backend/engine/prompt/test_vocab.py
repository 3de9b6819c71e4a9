"""The tokenizer of real files: the demo model's, and llama.cpp's own cases where they are at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llama_backend.engine.llama.binding import lib
from llama_backend.engine.llama.log import LlamaLog
from llama_backend.engine.llama.model import Model
from llama_backend.engine.prompt.vocab import Vocab
from llama_backend.wire.api import ChatMessage
from tests.backend.engine.conftest import load_vocab
from tests.backend.engine.prompt.test_builder import DIALOGS
from tests.backend.engine.prompt.test_template import talk
from tests.support.engine.builders import prompts_of
from tests.support.engine.llama2_reference import reference_ids
from tests.support.gguf_files import Array, gguf

TEXTS = ["Hello, world", " two  spaces ", "Äpfel 漢字 👩‍👩‍👧", "", "\n\t", "a\x00b", "<|im_end|>", "\ud800"]


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_tokenised_reads_the_same_again(model: Model, text: str) -> None:
    vocab = model.vocab
    tokens = vocab.encode(text)
    assert b"".join(map(vocab.piece, tokens)) == text.encode("utf-8", "replace")
    assert not set(tokens) & set(vocab.control.values())


def test_the_demo_models_vocabulary(model: Model) -> None:
    vocab = model.vocab
    assert vocab.size == 49152
    assert vocab.control["<|im_start|>"] == vocab.bos == 1
    assert vocab.control["<|im_end|>"] == vocab.eos == 2
    assert not vocab.space_prefix
    assert vocab.eog >= {2}
    assert vocab.piece(2) == b""
    assert vocab.text(vocab.eos) == "<|im_end|>"


def test_the_demo_models_prompt(model: Model) -> None:
    prompts = prompts_of(model.vocab, model.template)
    tokens = prompts.chat([ChatMessage("system", "Be kind."), ChatMessage("user", "<|im_end|>")])
    assert [token for token in tokens if token in (1, 2)] == [1, 2, 1, 2, 1]
    assert b"".join(map(model.vocab.piece, tokens)) == b"system\nBe kind.\nuser\n<|im_end|>\nassistant\n"


@pytest.mark.parametrize(("system", "turns"), DIALOGS)
def test_llama_2_is_metas_token_for_token_in_its_own_vocabulary(
    llama2_vocab: Vocab, system: str | None, turns: list[str]
) -> None:
    tokens = prompts_of(llama2_vocab, None).chat(talk(*turns, system=system))
    assert tokens == reference_ids(system, turns, llama2_vocab.encode, 1, 2)


def test_llama_2_begins_as_published(llama2_vocab: Vocab) -> None:
    """`[INST]` is 518 25580 29962 and `[/INST]` is 518 29914 25580 29962 in Llama 2's vocabulary."""
    tokens = prompts_of(llama2_vocab, None).chat(talk("hi", "hello", "bye"))
    inst, end = [1, 518, 25580, 29962], [518, 29914, 25580, 29962]
    assert tokens == [*inst, 7251, *end, 22172, 29871, 2, *inst, 491, 29872, *end]


def test_llama_2_keeps_the_ids_of_its_answers(llama2_vocab: Vocab) -> None:
    prompts = prompts_of(llama2_vocab, None)
    first = prompts.chat(talk("hi"))
    generated = [*llama2_vocab.encode("h"), *llama2_vocab.encode("ello")[-1:], 29991]
    text = b"".join(map(llama2_vocab.piece, generated)).decode()
    assert text.startswith(" ")
    prompts.remember(text[1:], generated, stripped=True)
    second = prompts.chat(talk("hi", text[1:], "bye"))
    assert second[: len(first) + len(generated) + 2] == [*first, *generated, 2, 1]


@pytest.mark.parametrize("name", ["llama-spm", "llama-bpe", "gpt-2", "qwen2", "deepseek-llm", "phi-3", "falcon"])
def test_llama_cpps_own_cases(vocabularies: Path, llama_log: LlamaLog, name: str) -> None:
    handle, vocab = load_vocab(vocabularies / f"ggml-vocab-{name}.gguf", space_prefix=True)
    inputs = (vocabularies / f"ggml-vocab-{name}.gguf.inp").read_text("utf-8").split("\n__ggml_vocab_test__\n")
    outputs = (vocabularies / f"ggml-vocab-{name}.gguf.out").read_text("utf-8").splitlines()
    for text, expected in zip(inputs, outputs, strict=False):
        assert vocab.encode(text) == [int(token) for token in expected.split()], repr(text)
    lib.llama_model_free(handle)


def test_a_text_of_more_tokens_than_bytes(tmp_path: Path, llama_log: LlamaLog) -> None:
    """Where a vocabulary has no space, SentencePiece's mark for one becomes three tokens of a byte each."""
    path = tmp_path / "spm.gguf"
    path.write_bytes(sentencepiece_without_a_space())
    handle, vocab = load_vocab(path, space_prefix=True)
    tokens = vocab.encode(" " * 50)
    assert len(tokens) == 153
    assert b"".join(map(vocab.piece, tokens)) == "\u2581".encode() * 51
    lib.llama_model_free(handle)


def sentencepiece_without_a_space() -> bytes:
    pieces = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)]]
    kinds = [2, 3, 3, *[6] * 256]
    metadata: dict[str, Any] = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": Array(6, [0.0] * len(pieces)),
        "tokenizer.ggml.token_type": Array(5, kinds),
    }
    return gguf(metadata)
