"""Targets: what a URL or a configured name stands for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qsl, urlsplit

from llama_chat.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from llama_chat.settings import Settings

LOCAL = "local"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""A Kubernetes name. It never begins with a hyphen, so kubectl cannot take it for an option."""
_FIELD = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9._]{0,252}")
_CONTEXT = re.compile(r"[^-\s][^\s]*")
_DEFAULT_FIELD = "keys"


@dataclass(frozen=True)
class KeySource:
    """Where the API key of a target is, if the target says so."""

    file: str | None = None
    variable: str | None = None


@dataclass(frozen=True)
class UrlTarget:
    """A backend at `http://…` or `https://…`."""

    url: str
    name: str
    """How the status line calls it."""
    key: KeySource = KeySource()

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class KubeTarget:
    """A Service in a cluster, reached through `kubectl port-forward`."""

    namespace: str
    service: str
    name: str
    port: int | None = None
    """The Service's port; None means the one named `http` or `https`, or else the first."""
    context: str | None = None
    """A context of the kubeconfig; None means the current one."""
    secret: str | None = None
    """The Secret with the API key in the same namespace."""
    secret_field: str = _DEFAULT_FIELD
    key: KeySource = KeySource()

    def __str__(self) -> str:
        return f"kube://{self.namespace}/{self.service}" + (f":{self.port}" if self.port else "")


Target = UrlTarget | KubeTarget


def find_target(settings: Settings) -> Target | None:
    """The target that the settings name, or None for the local backend; raises UsageError and ConfigError."""
    text = settings.target or settings.url
    if not text or text == LOCAL:
        return None
    if "://" in text:
        return parse_target(text, None, KeySource())
    named = settings.targets.get(text) if settings.target else None
    if named is None:
        known = ", ".join(sorted(settings.targets)) or "none"
        raise UsageError(f"{without_login(text)!r} is neither a URL nor the name of a target (known: {known})")
    try:
        return parse_target(named.url, text, KeySource(named.key_file, named.key_env))
    except UsageError as error:
        raise ConfigError(f"targets.{text}: {error}") from error


def parse_target(url: str, name: str | None, key: KeySource) -> Target:
    """The target behind a URL; raises UsageError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{without_login(url)!r} is not a URL") from error
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            "a URL must not contain the API key: others can see it; use LLAMA_CHAT_API_KEY, a key file or the keyring"
        )
    if parts.scheme == "kube":
        return _kube(parts, port, name, key)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"{without_login(url)!r} is not the URL of a backend; it must begin with http://, https:// or kube://"
        )
    if parts.query or parts.fragment:
        raise UsageError("the URL of a backend has no ? and no #; others could see an API key that is written there")
    return UrlTarget(url, name or parts.netloc, key)


def without_login(url: str) -> str:
    """A URL that may be shown: without a name and password before the host, which we refuse anyway."""
    return re.sub(r"^([a-z+]*://)?[^?]*@", r"\1…@", url, count=1, flags=re.IGNORECASE)


def _kube(parts: SplitResult, port: int | None, name: str | None, key: KeySource) -> KubeTarget:
    """`kube://namespace/service[:port][?context=…&secret=NAME[/FIELD]]`."""
    service, _, number = parts.path.strip("/").partition(":")
    namespace = parts.hostname or ""
    wanted = _port(number)
    if port is not None or not (_NAME.fullmatch(namespace) and _NAME.fullmatch(service)) or wanted == 0:
        raise UsageError("a Service is written kube://namespace/service[:port]")
    options = dict(parse_qsl(parts.query))
    if unknown := sorted(set(options) - {"context", "secret"}):
        raise UsageError(f"kube://…?{unknown[0]}=: only context and secret are known")
    secret, _, field = options.get("secret", "").partition("/")
    if secret and not (_NAME.fullmatch(secret) and _FIELD.fullmatch(field or _DEFAULT_FIELD)):
        raise UsageError("kube://…?secret= takes the name of a Secret, optionally followed by /field")
    context = options.get("context")
    if context is not None and not _CONTEXT.fullmatch(context):
        raise UsageError("kube://…?context= takes the name of a context in the kubeconfig")
    shown_name = name or f"{namespace}/{service}"
    return KubeTarget(namespace, service, shown_name, wanted, context, secret or None, field or _DEFAULT_FIELD, key)


def _port(text: str) -> int | None:
    """The port that `text` names: None where it is empty, 0 where it is not a port."""
    if not text:
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536 else 0
