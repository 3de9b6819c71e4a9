"""Makes the prompt of a conversation or of a text: its token ids."""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Protocol

from llama_backend.engine.kv.state_files import StoredAnswer
from llama_backend.engine.kv.stored_state import TOKEN_BYTES, packed
from llama_backend.engine.prompt.render_messages import Fragment
from llama_backend.engine.prompt.vocab import Vocab
from llama_backend.errors import InvalidRequest, PromptTooLong
from llama_backend.wire.api import ChatMessage

_REMEMBERED_TOKENS = 1_000_000
"""Most tokens of all remembered answers together."""
_USUAL_BYTES = 16
"""A text with at most so many bytes for each token of the context is not compared with the longest token: to find that
one, the whole vocabulary would have to be read."""


class Template(Protocol):
    """A chat template."""

    def render(self, messages: list[ChatMessage]) -> list[Fragment]:
        """The prompt up to where the answer begins. Raises InvalidRequest."""
        ...


class AnswerMemory:
    """The token ids of the answers that were generated here, by their scope and text.

    A text can be cut into tokens in several ways. The next turn of a conversation finds the KV cells of an answer only
    if its prompt has the tokens that were generated.
    """

    def __init__(self, capacity: int = _REMEMBERED_TOKENS) -> None:
        self._capacity = capacity
        self._size = 0
        self._answers: OrderedDict[tuple[str, str], StoredAnswer] = OrderedDict()

    def put(self, scope: str, text: str, tokens: list[int], stripped: bool) -> None:
        """Keeps an answer, and drops the oldest ones if there are too many tokens."""
        self._drop((scope, text))
        self._answers[scope, text] = StoredAnswer(tokens, stripped)
        self._size += len(tokens)
        while self._size > self._capacity:
            self._drop(next(iter(self._answers)))

    def get(self, scope: str, text: str) -> StoredAnswer | None:
        """The answer with that text, if it is remembered."""
        return self._answers.get((scope, text))

    def within(self, tokens: list[int], scope: str) -> list[StoredAnswer]:
        """The answers of a scope in a conversation of `tokens`; one at its end may lack its last token."""
        data = packed(tokens)
        own = [answer for (known_scope, _), answer in list(self._answers.items()) if known_scope == scope]
        return [answer for answer in own if _contains(data, answer.tokens)]

    def clear(self) -> None:
        """Drops all answers."""
        self._answers.clear()
        self._size = 0

    def _drop(self, key: tuple[str, str]) -> None:
        answer = self._answers.pop(key, None)
        self._size -= len(answer.tokens) if answer else 0


def _contains(data: bytes, tokens: list[int]) -> bool:
    wanted = packed(tokens)
    found = data.find(wanted)
    while found % TOKEN_BYTES and found >= 0:
        found = data.find(wanted, found + 1)
    return found >= 0 or (len(tokens) > 1 and data.endswith(wanted[:-TOKEN_BYTES]))


class PromptBuilder:
    """Makes prompts for one model; any thread may use it.

    A text that is too long for `context` tokens, even if each were the longest one, is refused without tokenising it.
    """

    def __init__(self, vocab: Vocab, template: Template, context: int) -> None:
        self._vocab = vocab
        self._template = template
        self._context = context
        texts = sorted(vocab.control, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, texts)) or r"(?!)")
        self._answers = AnswerMemory()

    def remember(self, text: str, tokens: list[int], stripped: bool, scope: str = "") -> None:
        """Keeps the ids of an answer, without the token that ended it, for later prompts of the same scope."""
        if text:
            self._answers.put(scope, text, tokens, stripped)

    def recall(self, answers: list[StoredAnswer], scope: str = "") -> None:
        """Keeps the ids of answers that an earlier process stored, oldest first."""
        for answer in answers:
            text = b"".join(map(self._vocab.piece, answer.tokens)).decode("utf-8", "replace")
            self.remember(text.removeprefix(" ") if answer.stripped else text, answer.tokens, answer.stripped, scope)

    def answers_in(self, tokens: list[int], scope: str = "") -> list[StoredAnswer]:
        """The remembered answers in a conversation of `tokens`; may be called by any thread."""
        return self._answers.within(tokens, scope)

    def clear(self) -> None:
        """Drops the ids of all answers."""
        self._answers.clear()

    def chat(self, messages: list[ChatMessage], scope: str = "") -> list[int]:
        """The prompt of a conversation, with a BOS in front where the model needs one."""
        fragments = self._template.render(messages)
        self._check_size(*(fragment.text for fragment in fragments))
        if not any(fragment.typed for fragment in fragments):
            self._refuse_control(messages)
        return self._with_bos(_Joiner(self._vocab, self._control, self._answers, scope).join(fragments))

    def text(self, prompt: str | list[int]) -> list[int]:
        """The prompt of a plain completion. Control tokens in a text stay text; token ids are checked."""
        if isinstance(prompt, str):
            self._check_size(prompt)
            return self._with_bos(self._vocab.encode(prompt))
        if len(prompt) > self._context:
            raise PromptTooLong.of(len(prompt), self._context)
        size = self._vocab.size
        wrong = [token for token in prompt if not 0 <= token < size]
        if wrong:
            raise InvalidRequest(f"prompt: {wrong[0]} is not a token id (0 to {size - 1})", param="prompt")
        return list(prompt)

    def _check_size(self, *texts: str) -> None:
        """Raises PromptTooLong for texts with more bytes than a context full of the longest token."""
        size = sum(len(text.encode("utf-8", "replace")) for text in texts)
        if size > self._context * _USUAL_BYTES and size > self._context * self._vocab.longest:
            raise PromptTooLong.at_least(size, -(-size // self._vocab.longest), self._context)

    def _refuse_control(self, messages: list[ChatMessage]) -> None:
        """Raises InvalidRequest for a message with the text of a control token, where it would become that token."""
        for message in messages:
            if found := self._control.search(message.text):
                text = f"the model's chat template cannot take {found[0]!r} as plain text"
                raise InvalidRequest(text, param="messages")

    def _with_bos(self, tokens: list[int]) -> list[int]:
        bos = self._vocab.bos
        if self._vocab.add_bos and bos is not None and tokens[:1] != [bos]:
            return [bos, *tokens]
        return tokens


class _Joiner:
    """Makes token ids of fragments. As in llama.cpp, the text between two control tokens is tokenised in one run."""

    def __init__(self, vocab: Vocab, control: re.Pattern[str], answers: AnswerMemory, scope: str) -> None:
        self._vocab = vocab
        self._control = control
        self._answers = answers
        self._scope = scope
        self._tokens: list[int] = []
        self._run = ""

    def join(self, fragments: list[Fragment]) -> list[int]:
        """The token ids of all fragments together."""
        queue = deque(fragments)
        while queue:
            fragment = queue.popleft()
            if not fragment.typed:
                self._add_template(fragment.text)
            elif not (fragment.answer and self._splice(fragment.text, queue)):
                self._run += fragment.text
        self._flush()
        return self._tokens

    def _add_template(self, text: str) -> None:
        for part, token in self._split(text):
            if token is None:
                self._run += part
            else:
                self._run = self._run.rstrip() if token in self._vocab.lstrip else self._run
                self._flush()
                self._tokens.append(token)

    def _split(self, text: str) -> Iterator[tuple[str, int | None]]:
        end, swallow = 0, False
        for match in self._control.finditer(text):
            before = text[end : match.start()]
            yield before.lstrip() if swallow else before, None
            token = self._vocab.control[match[0]]
            yield "", token
            end, swallow = match.end(), token in self._vocab.rstrip
        rest = text[end:]
        yield rest.lstrip() if swallow else rest, None

    def _splice(self, text: str, following: deque[Fragment]) -> bool:
        """Inserts the ids of a remembered answer where the template ends the answer with a control token."""
        answer = self._answers.get(self._scope, text)
        after = following[0].text.lstrip(" ") if following and not following[0].typed else ""
        if answer is None or not self._control.match(after):
            return False
        if answer.stripped:
            self._run = self._run.removesuffix(" ")
        self._flush()
        self._tokens.extend(answer.tokens)
        following[0] = Fragment(after)
        return True

    def _flush(self) -> None:
        if self._run:
            self._tokens.extend(self._vocab.encode(self._run))
        self._run = ""
