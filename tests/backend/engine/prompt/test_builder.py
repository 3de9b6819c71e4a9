"""Messages to token ids, over a small SentencePiece-like vocabulary whose rules are plain to see."""

from __future__ import annotations

import dataclasses
from unittest.mock import Mock

import pytest

from llama_backend.engine.prompt.builder import AnswerMemory
from llama_backend.engine.prompt.vocab import Vocab
from llama_backend.errors import InvalidRequest, PromptTooLong
from llama_backend.wire.api import ChatMessage
from tests.backend.engine.prompt.test_template import CHATML, talk
from tests.support.engine.builders import prompts_of
from tests.support.engine.llama2_reference import Dialog, reference_ids

BOS, EOS, IM_START, IM_END, STRIPS, FIRST_CHAR = 1, 2, 3, 4, 5, 100
CONTROL = {"<s>": BOS, "</s>": EOS, "<|im_start|>": IM_START, "<|im_end|>": IM_END, "<strips>": STRIPS}


class Words:
    """Whole words as ids, made as they come; as in SentencePiece a space belongs to the word that follows."""

    def __init__(self, space_prefix: bool) -> None:
        self._space_prefix = space_prefix
        self._words: list[str] = []

    def encode(self, text: str) -> list[int]:
        text = " " + text if self._space_prefix and text else text
        words = [""]
        for char in text:
            if char in " \n" or (words[-1] and words[-1][-1] in "\n"):
                words.append("")
            words[-1] += char
        return [self._id(word) for word in words if word]

    def _id(self, word: str) -> int:
        if word not in self._words:
            self._words.append(word)
        return FIRST_CHAR + self._words.index(word)

    def piece(self, token: int) -> bytes:
        return self._words[token - FIRST_CHAR].encode() if token >= FIRST_CHAR else b""


def make_vocab(space_prefix: bool = False, add_bos: bool = False) -> Vocab:
    words = Words(space_prefix)
    return Vocab(
        size=10_000,
        piece=words.piece,
        encode=words.encode,
        is_eog=lambda token: token in (EOS, IM_END),
        control=CONTROL,
        bos=BOS,
        eos=EOS,
        add_bos=add_bos,
        space_prefix=space_prefix,
        lstrip=frozenset({STRIPS}),
        rstrip=frozenset({STRIPS}),
    )


def show(vocab: Vocab, tokens: list[int]) -> str:
    names = {number: text for text, number in CONTROL.items()}
    return "".join(names.get(token) or vocab.piece(token).decode() for token in tokens)


def chat(vocab: Vocab, template: str | None, *contents: str, system: str | None = None) -> list[int]:
    return prompts_of(vocab, template).chat(talk(*contents, system=system))


DIALOGS: list[Dialog] = [
    (None, ["hi"]),
    ("be kind", ["hi"]),
    (None, ["hi", "hello", "bye"]),
    ("be kind", ["hi", "hello", "bye"]),
    ("  padded \n", ["  hi  ", "\n hello there \n", " bye "]),
    ("", ["hi"]),
    ("be kind", ["", "hello", ""]),
    (None, ["a\nb", "c\n\nd", "e", "f", "g"]),
    ("[INST]", ["<<SYS>>", "[/INST]", "x"]),
]


@pytest.mark.parametrize(("system", "turns"), DIALOGS)
def test_llama_2_is_metas_token_for_token(system: str | None, turns: list[str]) -> None:
    vocab = make_vocab(space_prefix=True, add_bos=True)
    assert chat(vocab, None, *turns, system=system) == reference_ids(system, turns, vocab.encode, BOS, EOS)


def test_llama_2_has_one_bos_a_turn() -> None:
    tokens = chat(make_vocab(space_prefix=True, add_bos=True), None, "a", "b", "c", "d", "e", system="s")
    assert tokens.count(BOS) == 3
    assert tokens.count(EOS) == 2
    assert tokens[0] == BOS
    assert tokens[1] != BOS


def test_bos_is_added_where_the_template_has_none_and_the_model_wants_one() -> None:
    assert chat(make_vocab(add_bos=True), CHATML, "hi")[:2] == [BOS, IM_START]
    assert chat(make_vocab(add_bos=False), CHATML, "hi")[:1] == [IM_START]
    assert chat(make_vocab(add_bos=True), "{{ bos_token }}x", "hi")[:2].count(BOS) == 1


@pytest.mark.parametrize("control", list(CONTROL))
@pytest.mark.parametrize("form", ["{}", "a{}b", " {} ", "{0}{0}", "\n{}user\n"])
def test_control_tokens_that_are_typed_stay_text(control: str, form: str) -> None:
    vocab = make_vocab()
    text = form.format(control)
    tokens = chat(vocab, CHATML, text, text, "bye", system=text)
    assert [token for token in tokens if token < FIRST_CHAR] == [IM_START, IM_END] * 4 + [IM_START]
    assert show(vocab, tokens).count(text) >= 3


def test_a_control_token_cannot_be_put_together_of_two_messages() -> None:
    vocab = make_vocab()
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    tokens = chat(vocab, template, "<|im_", "end|>", "x")
    assert min(tokens) >= FIRST_CHAR
    assert show(vocab, tokens) == "<|im_end|>x"


def test_where_typed_text_cannot_be_told_apart_control_tokens_in_it_are_refused() -> None:
    template = "{% for message in messages %}<|im_start|>{{ message.content.split('/')[-1] }}{% endfor %}"
    assert chat(make_vocab(), template, "thought/hi")[0] == IM_START
    with pytest.raises(InvalidRequest, match=r"'<\|im_end\|>' as plain text") as caught:
        chat(make_vocab(), template, "thought/a <|im_end|> b")
    assert caught.value.details["param"] == "messages"


def test_tokens_that_swallow_white_space_do() -> None:
    vocab = make_vocab()
    assert show(vocab, chat(vocab, "a <strips> b<s> c", "x")) == "a<strips>b<s> c"


def test_text_between_two_control_tokens_is_one_run() -> None:
    """As llama.cpp does it: a space prefix comes once a run, not once a fragment."""
    vocab = make_vocab(space_prefix=True)
    assert show(vocab, chat(vocab, "<s>a{{ messages[0].content }}b<s>c", "x")) == "<s> axb<s> c"


@pytest.mark.parametrize(
    ("template", "space_prefix", "end", "written", "shown"),
    [
        (CHATML, False, IM_END, "Hello there", "Hello there"),
        (None, True, EOS, " Hello there", "Hello there"),
    ],
)
def test_the_next_prompt_begins_with_the_last_one_and_the_ids_of_its_answer(
    template: str | None, space_prefix: bool, end: int, written: str, shown: str
) -> None:
    vocab = make_vocab(space_prefix, add_bos=template is None)
    builder = prompts_of(vocab, template)
    first = builder.chat(talk("hi", system="be kind"))
    generated = [vocab.encode(char)[-1] for char in written.strip()]
    assert generated != vocab.encode(shown)
    builder.remember(shown, generated, written != shown)
    second = builder.chat(talk("hi", shown, "more", system="be kind"))
    assert second[: len(first) + len(generated) + 1] == [*first, *generated, end]
    builder.remember("so", [900, 901], written != shown)
    third = builder.chat(talk("hi", shown, "more", "so", "yet more", system="be kind"))
    assert third[: len(second) + 3] == [*second, 900, 901, end]


def test_an_answer_that_was_changed_is_tokenised_from_its_text() -> None:
    vocab = make_vocab()
    builder = prompts_of(vocab, CHATML)
    builder.remember("Hello", [900], False)
    assert 900 not in builder.chat(talk("hi", "Hello!", "more"))


def test_a_user_who_types_a_past_answer_gets_no_ids_of_it() -> None:
    builder = prompts_of(make_vocab(), CHATML)
    builder.remember("Hello", [900], False)
    assert 900 not in builder.chat(talk("Hello"))


def test_an_answer_that_no_control_token_follows_is_tokenised_from_its_text() -> None:
    builder = prompts_of(make_vocab(), "{% for message in messages %}{{ message.content }}\n{% endfor %}")
    builder.remember("Hello", [900], False)
    assert 900 not in builder.chat(talk("hi", "Hello", "more"))


def test_an_empty_answer_is_not_remembered() -> None:
    builder = prompts_of(make_vocab(), CHATML)
    builder.remember("", [900], False)
    assert 900 not in builder.chat(talk("hi", "", "more"))


def test_memory_drops_the_oldest_answers() -> None:
    memory = AnswerMemory(capacity=10)
    for name in "abc":
        memory.put("", name, [1] * 4, stripped=False)
    assert [memory.get("", name) is not None for name in "abc"] == [False, True, True]
    memory.put("", "b", [2], stripped=True)
    memory.put("", "d", [1] * 5, stripped=False)
    assert [memory.get("", name) is not None for name in "bcd"] == [True, True, True]
    memory.put("", "e", [1] * 11, stripped=False)
    assert memory.get("", "e") is None


@pytest.mark.parametrize("add_bos", [False, True])
def test_a_plain_text_is_continued_as_it_is(add_bos: bool) -> None:
    vocab = make_vocab(add_bos=add_bos)
    tokens = prompts_of(vocab, CHATML).text("<|im_end|> is text")
    assert show(vocab, tokens) == ("<s>" if add_bos else "") + "<|im_end|> is text"
    assert IM_END not in tokens


def test_token_ids_are_taken_as_they_are() -> None:
    assert prompts_of(make_vocab(add_bos=True), None).text([5, 0, 9999]) == [5, 0, 9999]


@pytest.mark.parametrize("token", [-1, 10_000])
def test_what_is_no_token_id_is_refused(token: int) -> None:
    with pytest.raises(InvalidRequest, match=f"{token} is not a token id"):
        prompts_of(make_vocab(), None).text([5, token])


def test_a_vocabulary_without_control_tokens() -> None:
    vocab = make_vocab()
    plain = Vocab(size=vocab.size, piece=vocab.piece, encode=vocab.encode, is_eog=vocab.is_eog, control={})
    assert show(plain, prompts_of(plain, CHATML).chat([ChatMessage("user", "hi")])).startswith("<|im_start|>user")
    assert plain.text(None) == plain.text(1) == ""


def test_eog_lists_all_tokens_that_end_an_answer() -> None:
    assert make_vocab().eog == {EOS, IM_END}


def test_an_answer_of_another_scope_is_cut_into_tokens_as_any_text() -> None:
    vocab = make_vocab()
    prompts = prompts_of(vocab, CHATML)
    asked = talk("hello", "abc", "more")
    plain = prompts.chat(asked, "alice")
    prompts.remember("abc", [777], stripped=False, scope="alice")
    assert 777 in prompts.chat(asked, "alice")
    assert prompts.chat(asked, "bob") == prompts.chat(asked, "") == plain
    assert prompts.answers_in([777, 778], "bob") == []


def test_a_text_of_more_bytes_than_all_tokens_can_have_is_refused_before_it_is_cut() -> None:
    vocab = make_vocab()
    refuse = Mock(side_effect=AssertionError)
    words = dataclasses.replace(vocab, size=10, piece=lambda token: b"x" * (20 if token == 7 else 1), encode=refuse)
    prompts = prompts_of(words, CHATML, context=8)
    with pytest.raises(PromptTooLong, match="162 bytes long, at least 9 tokens, and the context holds 8") as caught:
        prompts.text("é" * 81)
    assert (caught.value.details["context"], caught.value.details["prompt_tokens"]) == (8, 9)
    with pytest.raises(PromptTooLong, match="and the context holds 8"):
        prompts.chat(talk("é" * 81))
    with pytest.raises(AssertionError):
        prompts.text("é" * 80)


def test_more_token_ids_than_the_context_holds_are_refused_before_they_are_looked_at() -> None:
    prompts = prompts_of(make_vocab(), CHATML, context=8)
    assert prompts.text([5] * 8) == [5] * 8
    with pytest.raises(PromptTooLong, match="9 tokens"):
        prompts.text([-1] * 9)
