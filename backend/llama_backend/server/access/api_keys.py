"""API keys from a file, each with its account.

A line is a key, followed by the settings of its account: `KEY name=alice weight=2 max_running=4
requests_per_minute=60`. Lines with the same name are keys of one account. Lines that begin with `#` are comments.
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
    """The accounts by key. The file is read again when it changes; while it is invalid the old keys stay.

    Raises InvalidRequest where the file cannot be used at the start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] | None = None
        self._problem: str | None = None
        self._exposure: str | None = None
        self._keys: list[tuple[bytes, Account]] = []
        self._refresh()
        if self._problem is not None:
            raise InvalidRequest(self._problem)
        if not self._keys:
            raise InvalidRequest(f"{path}: there is no key in this file; write at least one line with a key")

    def find(self, key: str) -> Account | None:
        """The account of a key, or None; the time that this takes reveals nothing about the keys in the file."""
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
                self._problem = None
                self._warn(exposure(found))
        except (OSError, ValueError, InvalidRequest) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            self._report(f"{self._path}: cannot be read: {reason}")

    def _warn(self, text: str | None) -> None:
        """Warns once that other users can read or change the keys."""
        if text is not None and text != self._exposure:
            _log.warning("%s holds API keys: %s", self._path, text)
        self._exposure = text

    def _report(self, problem: str) -> None:
        """Logs once what is wrong with the file."""
        if problem != self._problem:
            self._problem = problem
            _log.warning("%s", problem)


def parse_keys(text: str) -> list[tuple[bytes, Account]]:
    """The keys of a file and their accounts; raises InvalidRequest with the number of the line that is wrong."""
    keys: list[tuple[bytes, Account]] = []
    accounts: dict[str, Account] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if (words := line.split()) and not words[0].startswith("#"):
            account = _account(words, number)
            if accounts.setdefault(account.name, account) != account:
                raise InvalidRequest(
                    f"line {number}: the name {account.name!r} has other settings on another line; make them the same"
                )
            keys.append((words[0].encode(), account))
    return keys


def _account(words: list[str], number: int) -> Account:
    """The account that the words of a line describe; without a name it is named after the line.

    A line's number changes when lines are added, so the identity of such an account is made from its key.
    """
    key = blake2b(words[0].encode(), digest_size=16).hexdigest()
    fields = {"name": f"line{number}", "identity": f"key {key}"}
    for word in words[1:]:
        name, sign, value = word.partition("=")
        if not sign or name not in _SETTINGS:
            known = ", ".join(f"{field}=…" for field in _SETTINGS)
            raise InvalidRequest(f"line {number}: only {known} may follow the key; remove the other words")
        fields[name] = value
    if any(word.startswith("name=") for word in words[1:]):
        del fields["identity"]
    try:
        return msgspec.convert(fields, Account, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"line {number}: {error}") from error
