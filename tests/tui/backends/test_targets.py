"""What a URL or a configured name stands for."""

from __future__ import annotations

import pytest

from llama_chat.backends.targets import KeySource, KubeTarget, UrlTarget, find_target
from llama_chat.errors import ConfigError, UsageError
from llama_chat.settings import NamedTarget, Settings

WORK = {"work": NamedTarget(url="https://gpu.example.org", key_file="/keys/work")}


@pytest.mark.parametrize("settings", [Settings(), Settings(target="local"), Settings(target="local", targets=WORK)])
def test_no_target_is_the_local_backend(settings: Settings) -> None:
    assert find_target(settings) is None


@pytest.mark.parametrize("settings", [Settings(url="http://h:1/v1"), Settings(target="http://h:1/v1")])
def test_a_url_is_a_target(settings: Settings) -> None:
    assert find_target(settings) == UrlTarget("http://h:1/v1", "h:1")


def test_a_name_is_a_target_with_its_own_key() -> None:
    found = find_target(Settings(target="work", targets=WORK))
    assert found == UrlTarget("https://gpu.example.org", "work", KeySource("/keys/work"))


def test_an_unknown_name_tells_the_known_ones() -> None:
    with pytest.raises(UsageError, match="known: work"):
        find_target(Settings(target="wrok", targets=WORK))


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("kube://chat/llama-chat", KubeTarget("chat", "llama-chat", "chat/llama-chat")),
        ("kube://chat/llama-chat:80", KubeTarget("chat", "llama-chat", "chat/llama-chat", port=80)),
        ("kube://a/b?context=prod", KubeTarget("a", "b", "a/b", context="prod")),
        ("kube://a/b?secret=s", KubeTarget("a", "b", "a/b", secret="s")),
        ("kube://a/b?secret=s/api.keys", KubeTarget("a", "b", "a/b", secret="s", secret_field="api.keys")),
    ],
)
def test_a_service_is_a_target(url: str, target: KubeTarget) -> None:
    assert find_target(Settings(target=url)) == target


@pytest.mark.parametrize(
    "url",
    [
        "kube://chat",
        "kube:///svc",
        "kube://-n/svc",
        "kube://ns/--all",
        "kube://ns/svc:0",
        "kube://ns/svc:99999",
        "kube://ns/svc:http",
        "kube://ns:80/svc",
        "kube://ns/svc/more",
        "kube://ns/svc?context=--kubeconfig=/x",
        "kube://ns/svc?secret=-o",
        "kube://ns/svc?secret=s/$(x)",
        "kube://ns/svc?key=abc",
        "http://",
        "http://[",
        "ftp://host",
        "file:///etc/passwd",
    ],
)
def test_what_is_no_target_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        find_target(Settings(target=url))


@pytest.mark.parametrize("url", ["https://user:secret@host", "https://secret@host", "https://h/?api_key=secret"])
def test_a_key_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError, match="key") as caught:
        find_target(Settings(url=url))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "target",
    ["https://me:secret@h:port", "https://me:secret@[h", "me:secret@h", "ftp://me:secret@h", "HTTPS:me:secret@h"],
)
def test_what_is_no_target_is_named_without_its_login(target: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_target(Settings(target=target))
    assert "secret" not in str(caught.value)
    assert "me:" not in str(caught.value)


def test_a_mistake_in_the_file_names_its_entry() -> None:
    with pytest.raises(ConfigError, match=r"targets\.x"):
        find_target(Settings(target="x", targets={"x": NamedTarget(url="kube://x")}))
