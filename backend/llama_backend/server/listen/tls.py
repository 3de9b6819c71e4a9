"""TLS for the TCP port, with a certificate whose files may be replaced while the server runs."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from llama_backend.errors import InvalidRequest
from llama_backend.server.secret_file import exposure, read_secret

_log = logging.getLogger("llama_backend.server")
Stamp = tuple[tuple[int, int], ...]
"""Modification time and inode of each file."""


class Certificate:
    """A certificate chain and its key. After the files were replaced, the second new connection uses the new ones.

    Raises InvalidRequest where the files cannot be used at the start; later, files that cannot be used are ignored.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = certificate, key
        self._stamp = self._look()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.sni_callback = self._refresh
        try:
            self._load(self.context)
        except (OSError, InvalidRequest) as error:
            reason = getattr(error, "strerror", None) or error
            text = f"the certificate {certificate} with the key {key} cannot be used: {reason}"
            raise InvalidRequest(text) from error
        if warning := exposure(key.stat()):
            _log.warning("%s holds a private key: %s", key, warning)

    def _refresh(self, _connection: ssl.SSLObject, _name: str | None, context: ssl.SSLContext) -> None:
        """Called at each new connection: loads files that have changed, which the next connection uses."""
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._load(context)
            _log.info("the certificate was replaced")
        except (OSError, InvalidRequest) as error:
            _log.warning("the new certificate cannot be used, the old one stays: %s", error)

    def _load(self, context: ssl.SSLContext) -> None:
        """Loads the files into a context, which cannot be used any more where they do not fit together.

        Raises OSError (which includes ssl.SSLError) and InvalidRequest.
        """
        for file in self._files:
            read_secret(file)
        context.load_cert_chain(*self._files, password=_no_password)

    def _look(self) -> Stamp:
        try:
            return tuple((stat.st_mtime_ns, stat.st_ino) for stat in (file.stat() for file in self._files))
        except OSError:
            return ()


def _no_password() -> str:
    """Refuses an encrypted key: OpenSSL would block the server and ask for the password on the terminal."""
    raise InvalidRequest("the key is encrypted; write one without a password with `openssl pkey`")
