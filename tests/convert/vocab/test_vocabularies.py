"""Converted vocabularies cut text in the same way as the libraries that made them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jinja2
import pytest
import sentencepiece
import tokenizers

from llama_convert.errors import SourceError, UnsupportedModel
from llama_convert.gguf.reader import read_gguf
from llama_convert.gguf.tensor_types import TokenType
from llama_convert.gguf.values import Metadata, string, u32
from llama_convert.gguf.writer import GGUFWriter
from llama_convert.vocab.chat_template import LLAMA2, chosen_template
from llama_convert.vocab.load import load_hf_vocabulary, load_meta_vocabulary
from llama_convert.vocab.pretokenizer import pretokenizer_name
from llama_convert.vocab.vocabulary import Vocabulary
from tests.support.convert import demo, native, spm_json
from tests.support.convert.corpus import strings

COUNT = 10_000
LLAMA3_REGEX = (
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)


def write_vocabulary(path: Path, vocabulary: Vocabulary) -> Path:
    """A GGUF file with nothing but the vocabulary, which llama.cpp loads."""
    metadata: Metadata = {"general.architecture": string("llama"), "llama.vocab_size": u32(len(vocabulary.tokens))}
    with GGUFWriter(path, metadata | vocabulary.metadata(), []) as writer:
        writer.finish()
    return path


def disagreements(path: Path, reference: Any, texts: list[str]) -> list[str]:
    """The texts that llama.cpp cuts otherwise than `reference` does."""
    with native.loaded(path, vocab_only=True) as model:
        return [text for text in texts if native.tokenize(model, text) != reference(text)]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return list(strings(COUNT, seed=7))


@pytest.mark.parametrize("source", ["tokenizer.model", "tokenizer.json"])
def test_sentencepiece_and_llama_cpp_agree(tmp_path: Path, spm_model: Path, texts: list[str], source: str) -> None:
    if source == "tokenizer.model":
        shutil.copy(spm_model, tmp_path)
    else:
        (tmp_path / "tokenizer.json").write_text(json.dumps(spm_json.tokenizer_json(spm_model)))
    vocabulary, _ = load_hf_vocabulary(tmp_path, {})
    reference = sentencepiece.SentencePieceProcessor(model_file=str(spm_model))
    path = write_vocabulary(tmp_path / "vocabulary.gguf", vocabulary)
    assert disagreements(path, lambda text: reference.encode(text), texts) == []


def test_flat_scores_would_be_noticed(tmp_path: Path, spm_model: Path, texts: list[str]) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(spm_json.tokenizer_json(spm_model)))
    vocabulary, _ = load_hf_vocabulary(tmp_path, {})
    vocabulary.scores = [-1000.0] * len(vocabulary.tokens)
    reference = sentencepiece.SentencePieceProcessor(model_file=str(spm_model))
    path = write_vocabulary(tmp_path / "vocabulary.gguf", vocabulary)
    assert len(disagreements(path, lambda text: reference.encode(text), texts[:1000])) > 300


def test_byte_level_bpe_agrees_with_the_tokenizers_library(tmp_path: Path, demo_model: Path, texts: list[str]) -> None:
    file = read_gguf(demo_model)
    (tmp_path / "tokenizer.json").write_text(json.dumps(demo.tokenizer_json(file)))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(demo.tokenizer_config(file)))
    vocabulary, _ = load_hf_vocabulary(tmp_path, {})
    reference = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    reference.encode_special_tokens = True
    path = write_vocabulary(tmp_path / "vocabulary.gguf", vocabulary)
    assert disagreements(path, lambda text: reference.encode(text).ids, texts) == []


def test_the_demo_vocabulary_comes_back(tmp_path: Path, demo_model: Path) -> None:
    file = read_gguf(demo_model)
    (tmp_path / "tokenizer.json").write_text(json.dumps(demo.tokenizer_json(file)))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(demo.tokenizer_config(file)))
    vocabulary, files = load_hf_vocabulary(tmp_path, {"vocab_size": 49152})
    wanted = {key: value for key, value in file.metadata.items() if key.startswith("tokenizer.ggml.")}
    found = vocabulary.metadata()
    assert found.pop("tokenizer.ggml.add_eos_token").value is False
    assert found == wanted
    assert [path.name for path in files] == ["tokenizer.json", "tokenizer_config.json"]


def test_a_vocabulary_is_fitted_to_the_embedding(tmp_path: Path, spm_model: Path) -> None:
    shutil.copy(spm_model, tmp_path)
    vocabulary, _ = load_hf_vocabulary(tmp_path, {})
    vocabulary.fit(1002)
    assert vocabulary.tokens[1000:] == ["[PAD1000]", "[PAD1001]"]
    assert vocabulary.types[1000:] == [TokenType.UNUSED] * 2
    vocabulary.fit(990)
    assert len(vocabulary.tokens) == 990
    assert "12 tokens have no row" in vocabulary.warnings[-1]


def test_added_tokens_are_laid_over(tmp_path: Path, spm_model: Path) -> None:
    shutil.copy(spm_model, tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[PAD]": 1000, "▁tool▁": 1001}))
    decoder = {
        "1001": {"content": "▁tool▁", "special": False},
        "1003": {"content": "<|im_end|>", "special": False},
        "2": {"content": "</s>", "special": True},
    }
    config = {"added_tokens_decoder": decoder, "pad_token": "[PAD]", "eos_token": {"content": "<|im_end|>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"add_bos_token": False}))
    vocabulary, _ = load_hf_vocabulary(tmp_path, {"bos_token_id": 1})
    assert vocabulary.tokens[1000:] == ["[PAD]", " tool ", "[PAD1002]", "<|im_end|>"]
    kinds = [TokenType.USER_DEFINED, TokenType.USER_DEFINED, TokenType.UNUSED, TokenType.CONTROL]
    assert vocabulary.types[1000:] == kinds
    assert vocabulary.special == {"bos": 1, "eos": 1003, "unk": 0, "pad": 1000}
    assert vocabulary.add_bos is False


def test_meta_layout_knows_its_special_tokens(tmp_path: Path, spm_model: Path) -> None:
    (tmp_path / "7b").mkdir()
    shutil.copy(spm_model, tmp_path)
    vocabulary, files = load_meta_vocabulary(tmp_path / "7b")
    assert vocabulary.special == {"unk": 0, "bos": 1, "eos": 2}
    assert (vocabulary.add_bos, vocabulary.add_eos) == (True, False)
    assert files == [tmp_path / "tokenizer.model"]


@pytest.mark.parametrize("index", [-5, 1 << 40])
def test_impossible_ids_are_refused(tmp_path: Path, spm_model: Path, index: int) -> None:
    shutil.copy(spm_model, tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"x": index}))
    with pytest.raises(SourceError, match="impossible id"):
        load_hf_vocabulary(tmp_path, {})


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}, "gpt-2"),
        (
            {
                "type": "Sequence",
                "pretokenizers": [
                    {
                        "type": "Split",
                        "pattern": {"Regex": LLAMA3_REGEX},
                        "behavior": "Isolated",
                        "invert": False,
                    },
                    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
                ],
            },
            "llama-bpe",
        ),
    ],
)
def test_pretokenizers_are_known_by_their_structure(steps: dict[str, Any], name: str) -> None:
    assert pretokenizer_name({"pre_tokenizer": steps}, Path("tokenizer.json")) == name


def test_an_unknown_pretokenizer_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match=r"tokenizer\.json: the pre-tokenizer"):
        pretokenizer_name({"pre_tokenizer": {"type": "Whitespace"}}, Path("tokenizer.json"))


def test_unigram_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "Unigram", "vocab": []}}))
    with pytest.raises(UnsupportedModel, match="Unigram"):
        load_hf_vocabulary(tmp_path, {})


def _render(messages: list[dict[str, str]]) -> str:
    def refuse(text: str) -> None:
        raise ValueError(text)

    environment = jinja2.Environment(autoescape=False)
    template = environment.from_string(LLAMA2)
    return template.render(messages=messages, bos_token="<s>", eos_token="</s>", raise_exception=refuse)


def test_the_template_of_llama2_is_metas_format() -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi "},
        {"role": "assistant", "content": " Hello."},
        {"role": "user", "content": " Bye\n"},
    ]
    first = "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello. </s>"
    assert _render(turns) == first + "<s>[INST] Bye [/INST]"
    assert _render(turns[1:2]) == "<s>[INST] Hi [/INST]"


@pytest.mark.parametrize("roles", [["assistant"], ["user", "user"], ["user", "tool"], ["system", "assistant"]])
def test_the_template_of_llama2_refuses_other_orders(roles: list[str]) -> None:
    with pytest.raises(ValueError, match=r"roles must alternate|can speak"):
        _render([{"role": role, "content": "x"} for role in roles])


def test_where_a_template_comes_from(tmp_path: Path) -> None:
    def chosen(choice: str | None = None, config: dict[str, Any] | None = None, name: str = "x") -> dict[str, Any]:
        return {key: value.value for key, value in chosen_template(choice, tmp_path, config or {}, name).items()}

    key = "tokenizer.chat_template"
    assert chosen() == {}
    assert chosen(name="Llama-2-7b-chat") == chosen(name="llama2:7b-chat") == {key: LLAMA2}
    assert chosen(name="Llama-2-7b") == {}
    assert chosen("none", {"chat_template": "own"}, "Llama-2-7b-chat") == {}
    assert chosen("llama2", {"chat_template": "own"}) == {key: LLAMA2}
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "json"}))
    assert chosen() == {key: "json"}
    (tmp_path / "chat_template.jinja").write_text("jinja")
    assert chosen() == {key: "jinja"}
    assert chosen(None, {"chat_template": "own"}) == {key: "own"}
    named = [{"name": "default", "template": "a"}, {"name": "tools", "template": "b"}]
    assert chosen(None, {"chat_template": named}) == {key: "a", f"{key}.tools": "b", f"{key}s": ["tools"]}
    (tmp_path / "mine.jinja").write_text("mine")
    assert chosen(str(tmp_path / "mine.jinja")) == {key: "mine"}
