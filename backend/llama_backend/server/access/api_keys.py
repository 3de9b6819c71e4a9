"""API keys from a file, each with the account that it stands for.

A line is a key, and after it what its account may take: `KEY name=alice weight=2 max_running=4
requests_per_minute=60`. Lines with the same name are keys of one account. Lines that begin with `#` do not count.
"""

from __future__ import annotations

import hmac
import logging
from hashlib import blake2b
from pathlib import Path

import msgspec

from llama_backend.account import Account
from llama_backend.errors import InvalidRequest
from llama_backend.server.secret_file import exposure, read_secret

_log = logging.getLogger("llama_backend.server")
_SETTINGS = [field for field in Account.__struct_fields__ if field != "identity"]


class KeyFile:
    """The accounts by key. The file is read again when it changes; one that turns bad changes nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] | None = None
        self._trouble: str | None = None
        self._exposure: str | None = None
        self._keys: list[tuple[bytes, Account]] = []
        self._refresh()
        if self._trouble is not None:
            raise InvalidRequest(self._trouble)
        if not self._keys:
            raise InvalidRequest(f"{path}: there is no key in this file")

    def find(self, key: str) -> Account | None:
        """The account of a key, as a header has it; takes the same time for all wrong ones."""
        self._refresh()
        given = key.encode("latin-1", "replace")
        found = [account for known, account in self._keys if hmac.compare_digest(given, known)]
        return found[0] if found else None

    def _refresh(self) -> None:
        try:
            found = self._path.stat()
            stamp = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
            if stamp != self._stamp:
                self._stamp = stamp
                self._keys = parse_keys(read_secret(self._path).decode())
                self._trouble = None
                self._warn(exposure(found))
        except (OSError, ValueError, InvalidRequest) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            self._complain(f"{self._path}: cannot be read: {reason}")

    def _warn(self, text: str | None) -> None:
        """Says once that others can get at the keys."""
        if text is not None and text != self._exposure:
            _log.warning("%s holds API keys: %s", self._path, text)
        self._exposure = text

    def _complain(self, trouble: str) -> None:
        """Says once what is wrong with the file."""
        if trouble != self._trouble:
            self._trouble = trouble
            _log.warning("%s", trouble)


def parse_keys(text: str) -> list[tuple[bytes, Account]]:
    """The keys of a file and their accounts; raises InvalidRequest with the number of the line that is wrong."""
    keys: list[tuple[bytes, Account]] = []
    accounts: dict[str, Account] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if (words := line.split()) and not words[0].startswith("#"):
            account = _account(words, number)
            if accounts.setdefault(account.name, account) != account:
                raise InvalidRequest(f"line {number}: the name {account.name!r} has other settings on another line")
            keys.append((words[0].encode(), account))
    return keys


def _account(words: list[str], number: int) -> Account:
    """The account that a key and the words after it describe; one without a name is called by its line.

    A line's number changes when others are added, so that such an account is told from others by its key.
    """
    key = blake2b(words[0].encode(), digest_size=16).hexdigest()
    fields = {"name": f"line{number}", "identity": f"key {key}"}
    for word in words[1:]:
        name, sign, value = word.partition("=")
        if not sign or name not in _SETTINGS:
            known = ", ".join(f"{field}=…" for field in _SETTINGS)
            raise InvalidRequest(f"line {number}: after the key there can be {known}; got another word")
        fields[name] = value
    if any(word.startswith("name=") for word in words[1:]):
        del fields["identity"]
    try:
        return msgspec.convert(fields, Account, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"line {number}: {error}") from error
