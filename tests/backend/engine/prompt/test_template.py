"""Chat templates: what people typed is told from the template's own words, or else nothing is claimed."""

from __future__ import annotations

import pytest

from llama_backend.engine.prompt.render_messages import Fragment
from llama_backend.engine.prompt.template import LLAMA2, ChatTemplate
from llama_backend.errors import InvalidRequest
from llama_backend.wire.api import ChatMessage, Role

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def talk(*contents: str, system: str | None = None) -> list[ChatMessage]:
    """A conversation that the user begins."""
    roles: list[Role] = ["user", "assistant"]
    messages = [ChatMessage(roles[index % 2], text) for index, text in enumerate(contents)]
    return messages if system is None else [ChatMessage("system", system), *messages]


def own(text: str) -> Fragment:
    return Fragment(text)


def typed(text: str) -> Fragment:
    return Fragment(text, typed=True)


def answer(text: str) -> Fragment:
    return Fragment(text, typed=True, answer=True)


def loop(body: str) -> ChatTemplate:
    return ChatTemplate("{% for message in messages %}" + body + "|{% endfor %}", bos="<s>", eos="</s>")


def test_chatml() -> None:
    assert ChatTemplate(CHATML).render(talk("hi", "hello", "bye", system="be kind")) == [
        own("<|im_start|>system\n"),
        typed("be kind"),
        own("<|im_end|>\n<|im_start|>user\n"),
        typed("hi"),
        own("<|im_end|>\n<|im_start|>assistant\n"),
        answer("hello"),
        own("<|im_end|>\n<|im_start|>user\n"),
        typed("bye"),
        own("<|im_end|>\n<|im_start|>assistant\n"),
    ]


def test_a_developer_is_a_system() -> None:
    fragments = loop("{{ message.role }}:{{ message.content }}").render([ChatMessage("developer", "x")])
    assert fragments == [own("system:"), typed("x"), own("|")]


@pytest.mark.parametrize(
    ("body", "content", "shown"),
    [
        ("{{ message.content }}", " a ", " a "),
        ("{{ message['content'] }}", "a", "a"),
        ("{{ message.content | trim }}", " \n a b\t ", "a b"),
        ("{{ message.content.strip() }}", "\u3000a\x1f", "a"),
        ("{{ message.content.lstrip() }}", " a ", "a "),
        ("{{ message.content.rstrip() }}", " a ", " a"),
        ("{{ (' ' + message.content + ' ').strip() }}", " a ", "a"),
        ("{{ message.content | upper }}", "straße", "STRASSE"),
        ("{{ message.content | replace('a', 'b') }}", "banana", "bbnbnb"),
        ("{{ '' ~ message.content }}", " a ", " a "),
        ("{{ [message.content] | join('') }}", "a", "a"),
        ("{{ '%s' | format(message.content) }}", "a", "a"),
        ("{{ '{}'.format(message.content) }}", "a", "a"),
        ("{% set text = message.content %}{{ text }}", "a", "a"),
        ("{% if message.content is string %}{{ message.content }}{% endif %}", "a", "a"),
    ],
)
def test_what_templates_do_to_contents_keeps_them_apart(body: str, content: str, shown: str) -> None:
    assert loop(body).render(talk(content)) == [typed(shown), own("|")]


@pytest.mark.parametrize(
    ("body", "content", "plain"),
    [
        ("{{ (message.content ~ '!').strip() }}", " a", "a!|"),
        ("{{ message.content[:2] }}", "abc", "ab|"),
        ("{{ message.content | length }}", "abc", "3|"),
        ("{{ message.content.split('</think>')[-1] }}", "x</think>y", "y|"),
        ("{{ message.content | capitalize }}", "abc", "Abc|"),
        ("{{ message.content | reverse }}", "abc", "cba|"),
        ("{% if message.content == 'abc' %}yes{{ message.content }}{% endif %}", "abc", "yesabc|"),
        ("{% if message.content.startswith('a') %}yes{% endif %}", "abc", "yes|"),
        ("{{ message.content.strip('ac') }}", "abc", "b|"),
    ],
)
def test_where_contents_are_lost_sight_of_the_text_is_still_right(body: str, content: str, plain: str) -> None:
    assert loop(body).render(talk(content)) == [own(plain)]


def test_an_empty_message_hides_no_other() -> None:
    template = loop("{% if message.content %}{{ message.content }}{% else %}nothing{% endif %}")
    assert template.render(talk("", "a")) == [own("nothing|"), answer("a"), own("|")]


def test_messages_may_be_dropped_and_reordered() -> None:
    source = "{{ messages[-1].content }}/{{ messages[0].content }}"
    assert ChatTemplate(source).render(talk("a", "b", "c")) == [typed("c"), own("/"), typed("a")]


def test_nothing_of_the_messages_may_be_left() -> None:
    assert ChatTemplate("fixed").render(talk("a")) == [own("fixed")]
    assert ChatTemplate("").render(talk("a")) == []


@pytest.mark.parametrize("mark", ["\ufdd0", "\ufdd1", "\ufdd2", "\ufdd1x\ufdd0", "\ufdd0\ufdd1"])
def test_the_marks_are_harmless_in_what_people_type(mark: str) -> None:
    shown = "a" + "".join("\ufffd" if "\ufdd0" <= char <= "\ufdd2" else char for char in mark) + "b"
    assert ChatTemplate(CHATML).render(talk(f"a{mark}b"))[1] == typed(shown)


def test_parts_of_a_message_are_joined() -> None:
    from llama_backend.wire.api import TextPart

    message = ChatMessage("user", [TextPart("a"), TextPart("b")])
    assert loop("{{ message.content }}").render([message]) == [typed("ab"), own("|")]
    assert loop("{{ message.content }}").render([ChatMessage("user", None)]) == [own("|")]


def test_bos_eos_dates_json_and_loop_controls_are_at_hand() -> None:
    source = (
        "{{ bos_token }}{{ eos_token }}{{ strftime_now('%%') }}{{ {'a': 'é'} | tojson }}{{ [1] | tojson(indent=1) }}"
        "{% for x in [1, 2] %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}{% if tools %}no{% endif %}"
    )
    assert ChatTemplate(source, "<s>", "</s>").render(talk("a")) == [own('<s></s>%{"a": "é"}[\n 1\n]1')]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('roles must alternate') }}", "refuses: roles must alternate"),
        ("{{ nothing.at.all }}", "'nothing' is undefined"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ 'a' + 1 }}", "can only concatenate"),
        ("{{ messages[9].content }}", "no element 9"),
        ("{{ [1].index(2) }}", "not in list"),
        ("{% for i in range(10**9) %}x{% endfor %}", "Range too big"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ messages[0].update({'role': 'x'}) }}", "unsafe"),
        ("{% include 'x' %}", "no loader"),
        ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "recursion"),
    ],
)
def test_a_template_that_raises_or_reaches_out_refuses_the_messages(source: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        ChatTemplate(source).render(talk("a"))
    assert caught.value.details["param"] == "messages"
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "source", ["{% if %}", "{{", "{% for %}\n{% endfor %}", "{% nosuchtag %}", "{{ x | nofilter }}"]
)
def test_broken_syntax_is_told_in_one_line(source: str) -> None:
    with pytest.raises(InvalidRequest, match="template is broken") as caught:
        ChatTemplate(source)
    assert "\n" not in caught.value.message


def test_llama_2() -> None:
    assert ChatTemplate(LLAMA2, "<s>", "</s>").render(talk(" hi ", " hello ", "bye", system="be kind")) == [
        own("<s>[INST] <<SYS>>\n"),
        typed("be kind"),
        own("\n<</SYS>>\n\n"),
        typed(" hi"),
        own(" [/INST] "),
        answer("hello"),
        own(" </s><s>[INST] "),
        typed("bye"),
        own(" [/INST]"),
    ]


@pytest.mark.parametrize(
    "roles",
    [
        ["assistant"],
        ["user", "user"],
        ["system", "assistant"],
        ["system", "system", "user"],
        ["user", "system", "user"],
        ["user", "tool", "user"],
    ],
)
def test_llama_2_refuses_what_metas_reference_refuses(roles: list[Role]) -> None:
    with pytest.raises(InvalidRequest, match="take turns"):
        ChatTemplate(LLAMA2).render([ChatMessage(role, "x") for role in roles])


def test_llama_2_can_be_counted_up_to_an_answer() -> None:
    assert ChatTemplate(LLAMA2, "<s>", "</s>").render(talk("a", "b"))[-1] == own(" </s>")
