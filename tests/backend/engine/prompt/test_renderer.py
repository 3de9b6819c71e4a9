"""A chat template in its own process: it renders as in this one, and cannot take more than it may."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from llama_backend.engine.prompt import renderer as module
from llama_backend.engine.prompt.renderer import Renderer
from llama_backend.engine.prompt.template import LLAMA2, ChatTemplate
from llama_backend.errors import InvalidRequest
from tests.backend.engine.prompt.test_template import CHATML, talk
from tests.support.server.harness import python_path, runs

LOOPS = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"
DOUBLING = "{% set ns = namespace(s='a') %}{% for i in range(34) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}"
RARE = "{% if messages | length > 2 %}BOMB{% endif %}{{ messages[0].content }}"
"""A template that goes wrong with a longer conversation only."""

Open = Callable[[str | None], Renderer]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    monkeypatch.setenv("PYTHONPATH", python_path())
    monkeypatch.setenv("LLAMA_CHAT_API_KEY", "secret")
    renderers = []

    def open_it(source: str | None) -> Renderer:
        renderers.append(renderer := Renderer())
        renderer.open(source, "<s>", "</s>")
        return renderer

    yield open_it
    for renderer in renderers:
        renderer.close()


@pytest.mark.parametrize("source", [CHATML, None, "", "{{ bos_token }}{{ messages[0].content | trim }}{{ eos_token }}"])
def test_it_renders_as_in_this_process(opened: Open, source: str | None) -> None:
    renderer = opened(source)
    here = ChatTemplate(LLAMA2 if source is None else source, "<s>", "</s>")
    for messages in (talk("hi"), talk(" a \n", "b", "\U0001f600")):
        assert renderer.render(messages) == here.render(messages)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% if %}", "is broken: Expected an expression"),
        ("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", "is broken"),
        (LOOPS, "more than 1 s of processor time"),
    ],
)
def test_what_no_conversation_gets_through_is_told_when_it_is_opened(opened: Open, source: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        opened(source)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("bomb", "reason"),
    [
        (LOOPS, "takes more than 1 s of processor time"),
        (DOUBLING, "takes more than 512 MiB of memory"),
        ("{{ 'a' * 8000000000 }}", "takes more than 512 MiB of memory"),
        ("{{ 'a' * 20000000 }}", "writes 20000000 characters|writes 20000001 characters"),
        ("{{ raise_exception('a\n' * 1000000) }}", "refuses: a a a"),
        ("{{ '%999999999999d' % 1 }}", "chat template"),
    ],
)
def test_a_bomb_refuses_who_sets_it_off_and_nobody_after(opened: Open, bomb: str, reason: str) -> None:
    renderer = opened(RARE.replace("BOMB", bomb))
    begin = monotonic()
    for _ in range(2):
        with pytest.raises(InvalidRequest, match=reason) as caught:
            renderer.render(talk("a", "b", "c"))
        assert len(caught.value.message) < 1000
        assert caught.value.details["param"] == "messages"
        assert [fragment.text for fragment in renderer.render(talk("x"))] == ["x"]
    assert monotonic() - begin < 60


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_is_killed_or_stopped_is_followed_by_another(
    opened: Open, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(module, "WALL_SECONDS", 1.0)
    renderer = opened(CHATML)
    pid = renderer.pid
    os.kill(pid, number)
    with pytest.raises(InvalidRequest, match="chat template"):
        renderer.render(talk("a"))
    assert renderer.render(talk("a")) == ChatTemplate(CHATML).render(talk("a"))
    assert not runs(pid)


def test_the_process_has_no_keys_and_ends_with_its_renderer(opened: Open) -> None:
    renderer = opened(CHATML)
    pid = renderer.pid
    assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert b"PYTHONPATH" in Path(f"/proc/{pid}/environ").read_bytes()
    renderer.close()
    assert not runs(pid)
