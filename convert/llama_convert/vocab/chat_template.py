"""Chat templates: where a checkpoint keeps its own, and the one of Llama 2 for those that have none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from llama_convert.errors import CorruptSource, UsageError
from llama_convert.files import read_json
from llama_convert.gguf.values import Metadata, string, strings
from llama_convert.untrusted import excerpt, read_text

_MOST_TEMPLATES = 100
_LONGEST_NAME = 100
_LLAMA2_CHAT = re.compile(r"llama-?2.*chat", re.IGNORECASE)
LLAMA2 = """\
{%- if messages[0]['role'] == 'system' -%}
    {%- set preamble = '<<SYS>>\\n' ~ messages[0]['content'] ~ '\\n<</SYS>>\\n\\n' -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set preamble = '' -%}
    {%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{- raise_exception('roles must alternate, the user first') -}}
    {%- elif message['role'] == 'user' -%}
        {%- set content = (preamble ~ message['content']) if loop.first else message['content'] -%}
        {{- bos_token ~ '[INST] ' ~ content.strip() ~ ' [/INST]' -}}
    {%- elif message['role'] == 'assistant' -%}
        {{- ' ' ~ message['content'].strip() ~ ' ' ~ eos_token -}}
    {%- else -%}
        {{- raise_exception('only system, user and assistant can speak') -}}
    {%- endif -%}
{%- endfor -%}
"""
"""The prompt format of Llama 2's chat models, as Meta's reference code builds it."""


def chosen_template(choice: str | None, folder: Path, config: dict[str, Any], name: str) -> Metadata:
    """The template's metadata: the one that the user chose, else the checkpoint's, else Llama 2's for a chat model.

    `choice` is None, "llama2", "none" or a path; `config` is `tokenizer_config.json`; `name` is the model's name.
    """
    if choice == "none":
        return {}
    if choice == "llama2":
        return _metadata(LLAMA2)
    if choice is not None:
        return _metadata(_read(Path(choice)))
    found = own_template(folder, config)
    if found is None and _LLAMA2_CHAT.search(name):
        found = LLAMA2
    return _metadata(found)


def own_template(folder: Path, config: dict[str, Any]) -> Any:
    """The checkpoint's template: a string, a list of named ones, or None."""
    if config.get("chat_template"):
        return config["chat_template"]
    jinja, described = folder / "chat_template.jinja", folder / "chat_template.json"
    if jinja.is_file():
        others = sorted((folder / "additional_chat_templates").glob("*.jinja"))
        named = [{"name": path.stem, "template": read_text(path)} for path in others]
        main = read_text(jinja)
        return [{"name": "default", "template": main}, *named] if named else main
    return read_json(described).get("chat_template")


def _metadata(template: Any) -> Metadata:
    if isinstance(template, str):
        return {"tokenizer.chat_template": string(template)}
    if not isinstance(template, list):
        return {}
    named = dict(map(_named, template[:_MOST_TEMPLATES]))
    values = {f"tokenizer.chat_template.{name}": string(text) for name, text in named.items() if name != "default"}
    if values:
        values["tokenizer.chat_templates"] = strings(name for name in named if name != "default")
    if "default" in named:
        values["tokenizer.chat_template"] = string(named["default"])
    return values


def _named(entry: Any) -> tuple[str, str]:
    match entry:
        case {"name": str(name), "template": str(text)} if len(name) <= _LONGEST_NAME:
            return name, text
    raise CorruptSource(f"a chat template needs a name and a text, but one is {excerpt(entry)}")


def _read(path: Path) -> str:
    """A file that the user names; unlike the files of a checkpoint it may be a pipe."""
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise UsageError(f"the chat template {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"the chat template {path} is not a text ({error})") from error
