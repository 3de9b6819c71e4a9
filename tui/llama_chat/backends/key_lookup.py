"""API keys for backends elsewhere: from an environment variable, a file or the keyring, never from the command line."""

from __future__ import annotations

import os
from pathlib import Path

from llama_chat.backends.targets import Target
from llama_chat.errors import ConfigError

VARIABLE = "LLAMA_CHAT_API_KEY"
_SERVICE = "llama-chat"
"""The service under which the keyring has our keys; the user name there is the target's name or its URL."""


def find_key(target: Target, key_file: str | None) -> str | None:
    """The key for `target`, or None where there is none.

    The target's own variable or file comes first, then LLAMA_CHAT_API_KEY, the file `key_file`, and the keyring.
    Raises ConfigError where a variable or file is named that has no key.
    """
    if target.key.variable:
        return _from_variable(target.key.variable)
    if target.key.file:
        return read_key(target.key.file)
    if key := os.environ.get(VARIABLE, "").strip():
        return key
    return read_key(key_file) if key_file else _from_keyring(target)


def read_key(file: str) -> str:
    """The first API key in a file of the form that `serve` reads; raises ConfigError."""
    try:
        text = Path(file).expanduser().read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the file with the API key cannot be read: {error}") from error
    key = first_key(text)
    if key is None:
        raise ConfigError(f"the file {file} contains no API key")
    return key


def first_key(text: str) -> str | None:
    """The first key in a text with one key a line; words after a key and lines that begin with `#` are ignored."""
    lines = (line.split() for line in text.splitlines())
    return next((words[0] for words in lines if words and not words[0].startswith("#")), None)


def _from_variable(name: str) -> str:
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(f"the variable {name}, which should hold the API key, is not set")
    return key


def _from_keyring(target: Target) -> str | None:
    """The key that the `keyring` package has, where that is installed and the keyring can be opened."""
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        return None
    try:
        found: str | None = keyring.get_password(_SERVICE, target.name) or keyring.get_password(_SERVICE, str(target))
    except KeyringError:
        return None
    return found
