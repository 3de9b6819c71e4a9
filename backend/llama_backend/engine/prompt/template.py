"""Chat templates make one text of a conversation, in which the contents of messages are kept apart from the rest.

Each message's content goes through the template between two noncharacters of Unicode as marks. So it is known
afterwards which text is the template's, in which control tokens count, and which was typed, in which they stay plain
text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NoReturn, SupportsIndex

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llama_backend.engine.prompt.render_messages import Fragment
from llama_backend.errors import InvalidRequest
from llama_backend.wire.api import ChatMessage

# Meta's reference: https://github.com/meta-llama/llama, llama/generation.py, chat_completion.
LLAMA2 = """\
{%- if messages[0].role == 'system' -%}
    {%- set system, turns = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n', messages[1:] -%}
{%- else -%}
    {%- set system, turns = '', messages -%}
{%- endif -%}
{%- for message in turns -%}
    {%- if message.role != ('user', 'assistant')[loop.index0 % 2] -%}
        {{- raise_exception('after an optional system message, user and assistant must take turns') -}}
    {%- endif -%}
    {%- if message.role == 'user' -%}
        {{- bos_token + '[INST] ' + ((system if loop.first else '') + message.content).strip() + ' [/INST]' -}}
    {%- else -%}
        {{- ' ' + message.content.strip() + ' ' + eos_token -}}
    {%- endif -%}
{%- endfor -%}
"""
"""Llama 2's own format, for files without a template."""

_TYPED, _ANSWER, _END = "\ufdd0", "\ufdd2", "\ufdd1"
_MARKS = str.maketrans(dict.fromkeys((_TYPED, _ANSWER, _END), "\ufffd"))
_MARKED = re.compile(f"([{_TYPED}{_ANSWER}])([^{_END}]*){_END}")
_HEAD = re.compile(rf"[\s{_TYPED}{_ANSWER}{_END}]*")
_TAIL = re.compile(rf"[\s{_TYPED}{_ANSWER}{_END}]*\Z")
_SPACE = re.compile(r"\s+")


class ChatTemplate:
    """A Jinja template as Hugging Face defines them, in a sandbox."""

    def __init__(self, source: str, bos: str = "", eos: str = "") -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _raise, "strftime_now": _now, "bos_token": bos, "eos_token": eos}
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise InvalidRequest(f"the model's chat template is broken: {error}") from error

    def render(self, messages: list[ChatMessage]) -> list[Fragment]:
        """The prompt up to where the answer begins. Raises InvalidRequest where the template refuses the messages.

        Where the template changes contents, so that their places are not known, the prompt is a single fragment that
        counts as the template's own text.
        """
        clean = [(_role(message), message.text.translate(_MARKS)) for message in messages]
        plain = self._render([{"role": role, "content": text} for role, text in clean])
        marked = self._render([{"role": role, "content": _Content.of(role, text)} for role, text in clean])
        if _MARKED.sub(r"\2", marked) == plain:
            return list(_fragments(marked))
        return [Fragment(plain)]

    def _render(self, messages: list[dict[str, str]]) -> str:
        try:
            return self._template.render(messages=messages, add_generation_prompt=True, tools=None)
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            raise InvalidRequest(f"the model's chat template refuses: {error}", param="messages") from error


class _Content(str):
    """A message's content between marks, which joining keeps; stripping removes the white space inside of them."""

    __slots__ = ()

    @classmethod
    def of(cls, role: str, text: str) -> _Content:
        """The text between marks; an empty text gets no marks, since templates test whether a content is empty."""
        return cls(f"{_ANSWER if role == 'assistant' else _TYPED}{text}{_END}" if text else "")

    def __add__(self, other: str) -> _Content:
        return _Content(str.__add__(self, other))

    def __radd__(self, other: str) -> _Content:
        return _Content(str.__add__(other, self))

    def __getitem__(self, key: SupportsIndex | slice) -> _Content:
        return _Content(str.__getitem__(self, key))

    def strip(self, chars: str | None = None) -> _Content:
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: str | None = None) -> _Content:
        return self if chars else _Content(_HEAD.sub(lambda head: _SPACE.sub("", head[0]), self, count=1))

    def rstrip(self, chars: str | None = None) -> _Content:
        return self if chars else _Content(_TAIL.sub(lambda tail: _SPACE.sub("", tail[0]), self, count=1))


def _fragments(marked: str) -> Iterable[Fragment]:
    end = 0
    for match in _MARKED.finditer(marked):
        if match.start() > end:
            yield Fragment(marked[end : match.start()])
        yield Fragment(match[2], typed=True, answer=match[1] == _ANSWER)
        end = match.end()
    if end < len(marked):
        yield Fragment(marked[end:])


def _role(message: ChatMessage) -> str:
    return "system" if message.role == "developer" else message.role


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
