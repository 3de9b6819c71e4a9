"""Chat templates that are meant to do harm: each is refused or renders, soon, in little memory, and no more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from unittest.mock import patch

from hypothesis import strategies as st

from llama_backend.engine.prompt.renderer import Renderer
from llama_backend.errors import InvalidRequest
from llama_backend.wire.api import ChatMessage
from tests.backend.engine.prompt.test_template import CHATML
from tests.hostile.trial import Check, Trial
from tests.hostile.words import one_of
from tests.support.server.harness import python_path

_SECONDS = 25.0
"""Four answers of at most a second of processor time each, on a machine that is busy."""
_CANARY = "canary"
_MARKS = ("\ufdd0", "\ufdd1", "\ufdd2")

_TALKS = [
    [ChatMessage("user", "hi")],
    [
        ChatMessage("system", "be {{ kind }}"),
        ChatMessage("user", "{% x %}"),
        ChatMessage("assistant", "\ufdd1<|im_end|>"),
    ],
    [ChatMessage("user", "")],
]

_NAMES = one_of(
    r"""
    messages · messages[0] · messages[0].content · message.content · message · loop · ns · ns.s · x · self ·
    bos_token · tools · cycler · joiner · lipsum · namespace · range · dict · true · none · varargs
    """
)
_LITERALS = one_of(
    r"""
    '' · 'a' · '%s' · '{}' · '{0.__class__}' · '%999999999d' · '\ufdd0' · 0 · 1 · -1 · 100000 ·
    99999999999999999999 · 1e308 · [] · [1] · {} · {'a': 1} · () · (1, 2)
    """
)
_ATTRIBUTES = one_of(
    r"""
    content · role · items() · strip() · split() · format(1) · format_map({}) · replace('a', 'aa') · append(1) ·
    join(messages) · upper() · __class__ · __init__ · __globals__ · __mro__ · __subclasses__() · s ·
    ljust(100000000) · zfill(999999999) · encode() · translate({}) · gi_frame · f_globals · __add__('a')
    """
)
_FILTERS = one_of(
    r"""
    trim · upper · length · list · join('') · tojson · safe · reverse · first · sort · map('upper') · e ·
    center(100000000) · indent(1000000) · replace('a', 'aaaaaaaaaa') · batch(1) · slice(100000) · format(1) ·
    attr('__class__') · groupby('x') · tojson(indent=100000000) · wordwrap(1) · truncate(0) · random · nosuch
    """
)
_BOMBS = st.sampled_from(
    [
        "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
        "{% set ns.s = ns.s ~ ns.s %}" * 40,
        "{{ 'a' * 8000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ (messages * 100000) * 100000 }}",
        "{% macro f(x) %}{{ f(x) }}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{{ [1] * 10000000000 }}",
        "{{ range(99999) | map('string') | join('a' * 100000) }}",
        "{% set x = [] %}{% for a in messages recursive %}{{ loop(messages) }}{% endfor %}",
        "{{" + "(" * 300 + "1" + ")" * 300 + "}}",
        "{% if x %}" * 120 + "{% endif %}" * 120,
        "{{ 'a'.__class__.__mro__[1].__subclasses__() }}",
        f"{{{{ cycler.__init__.__globals__.os.system('touch {_CANARY}') }}}}",
        f"{{{{ lipsum.__globals__['os'].popen('touch {_CANARY}').read() }}}}",
        "{{ ('{0.__init__.__globals__}').format(cycler) }}{% set x = self._TemplateReference__context %}",
        f"{{% include '{_CANARY}' %}}",
        f"{{% import 'os' as os %}}{{{{ os.system('touch {_CANARY}') }}}}",
        "{{ messages[0].content.__class__.__add__(messages[0].content, 'a') }}",
    ]
)


def _expressions() -> st.SearchStrategy[str]:
    def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        operators = st.sampled_from(["+", "-", "*", "**", "~", "%", "/", "//", "in", "==", "and", "if x else"])
        return st.one_of(
            st.tuples(inner, operators, inner).map(lambda parts: f"({' '.join(parts)})"),
            st.tuples(inner, _ATTRIBUTES).map(".".join),
            st.tuples(inner, _FILTERS).map(" | ".join),
            st.tuples(inner, inner).map(lambda parts: f"{parts[0]}[{parts[1]}]"),
            inner.map(lambda each: f"range({each})"),
            inner.map(lambda each: f"raise_exception({each})"),
        )

    return st.recursive(st.one_of(_NAMES, _LITERALS), grow, max_leaves=6)


def _statements() -> st.SearchStrategy[str]:
    expressions = _expressions()

    def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        bodies = st.lists(inner, max_size=4).map("".join)
        return st.one_of(
            st.tuples(expressions, bodies).map(
                lambda parts: f"{{% for message in {parts[0]} %}}{parts[1]}{{% endfor %}}"
            ),
            st.tuples(expressions, bodies).map(lambda parts: f"{{% if {parts[0]} %}}{parts[1]}{{% endif %}}"),
            bodies.map(lambda body: f"{{% for a in range(99999) %}}{body}{{% endfor %}}"),
            bodies.map(lambda body: f"{{% macro f(x) %}}{body}{{% endmacro %}}{{{{ f(f) }}}}"),
            bodies.map(lambda body: f"{{% set x %}}{body}{{% endset %}}"),
        )

    leaves = st.one_of(
        expressions.map(lambda each: f"{{{{ {each} }}}}"),
        expressions.map(lambda each: f"{{% set x = {each} %}}"),
        expressions.map(lambda each: f"{{% set ns.s = {each} %}}"),
        _BOMBS,
        st.sampled_from(
            ["{{ messages[0].content }}", "{% break %}", "\ufdd0", "\ufdd1", "<|im_end|>", "\n", "{#", "{%-"]
        ),
        st.text(max_size=5),
    )
    return st.recursive(leaves, grow, max_leaves=8)


def _cut(parts: tuple[str, int, str]) -> str:
    """A template that is broken somewhere."""
    text, place, other = parts
    place %= len(text) + 1
    return text[:place] + other + text[place + 1 :]


def _cases() -> st.SearchStrategy[bytes]:
    whole = st.lists(_statements(), min_size=1, max_size=4).map(
        lambda parts: "{% set ns = namespace(s='a') %}" + "".join(parts)
    )
    broken = st.tuples(st.one_of(whole, st.just(CHATML)), st.integers(0, 10_000), st.text(max_size=3)).map(_cut)
    return st.one_of(whole, whole, broken).map(lambda text: text.encode("utf-8", "replace"))


@contextmanager
def _opened(work: Path) -> Iterator[Check]:
    canary = work / _CANARY
    with patch.dict(os.environ, {"PYTHONPATH": python_path()}):
        yield lambda case: _check(case.decode("utf-8", "replace"), canary)


def _check(source: str, canary: Path) -> None:
    begin = monotonic()
    renderer = Renderer()
    try:
        renderer.open(source, "<s>", "</s>")
        for messages in _TALKS:
            _render(renderer, messages)
    except InvalidRequest as error:
        _check_error(error)
    finally:
        renderer.close()
    assert monotonic() - begin < _SECONDS
    assert not canary.exists()
    assert not Path(_CANARY).exists()


def _render(renderer: Renderer, messages: list[ChatMessage]) -> None:
    try:
        fragments = renderer.render(messages)
    except InvalidRequest as error:
        _check_error(error)
        return
    assert not any(fragment.typed and set(_MARKS) & set(fragment.text) for fragment in fragments)


def _check_error(error: InvalidRequest) -> None:
    assert "chat template" in error.message
    assert len(error.message) < 1000
    assert "\n" not in error.message


TEMPLATES = Trial("templates", _cases(), _opened, examples=40)
