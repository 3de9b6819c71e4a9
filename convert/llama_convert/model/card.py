"""The head of a model's README.md: YAML between two lines of dashes, as hubs know it."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from llama_convert.errors import CorruptSource
from llama_convert.untrusted import read_text

_LONGEST_HEAD = 1 << 16
_LONGEST_TEXT = 1000
_NULL = "tag:yaml.org,2002:null"
_END = re.compile(r"\n---[ \t]*\r?(?:\n|$)")


def read_card(path: Path) -> dict[str, list[str]]:
    """The texts in the head by key, each as a list. Empty where there is no head that can be read.

    Only the plain texts of the outermost level are taken. References, from which a few lines of YAML can build
    something huge, are never followed.
    """
    try:
        found = yaml.compose(_head(path), Loader=yaml.SafeLoader) if path.is_file() else None
    except (CorruptSource, OSError, RecursionError, ValueError, yaml.YAMLError):
        # A card is written by hand, or even to do harm; the model works without it.
        return {}
    if not isinstance(found, yaml.MappingNode):
        return {}
    pairs = ((key.value, _texts(value)) for key, value in found.value if isinstance(key, yaml.ScalarNode))
    return {key: texts for key, texts in pairs if texts}


def _head(path: Path) -> str:
    text = read_text(path)[:_LONGEST_HEAD]
    if not text.startswith("---"):
        return ""
    end = _END.search(text, 3)
    return text[3 : end.start()] if end else ""


def _texts(node: yaml.Node) -> list[str]:
    """A text or the texts in a list, without empty and very long ones."""
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    plain = [item for item in nodes if isinstance(item, yaml.ScalarNode) and item.tag != _NULL]
    return [item.value for item in plain if item.value and len(item.value) <= _LONGEST_TEXT]
