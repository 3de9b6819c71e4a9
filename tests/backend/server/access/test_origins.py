"""Web pages of other sites: refused with a key and without one, unless their origin is allowed."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from llama_backend.errors import InvalidRequest
from llama_backend.server.access.auth import Authenticator
from tests.support.server.harness import CHAT, ServerProcess, chat, fake_config, free_port, serving

APP = "https://chat.example"
SECOND = "app://notes"
FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "https://chat.example.evil.example"},
    {"Origin": "http://chat.example"},
    {"Origin": "https://chat.example:8443"},
    {"Origin": "file://"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "HOST"},
    {"Sec-Fetch-Site": "none", "Origin": "http://evil.example"},
]
OWN = [
    {},
    {"Origin": "HOST"},
    {"Origin": "HOST", "Sec-Fetch-Site": "same-origin"},
    {"Origin": "https://behind.a.proxy.example", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
]
PREFLIGHT = {"Origin": APP, "Access-Control-Request-Method": "POST"}


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with a key on TCP, which pages of two origins may use."""
    folder = tmp_path_factory.mktemp("keyed")
    (folder / "keys").write_text("a-key\n")
    config = fake_config(
        folder, host="127.0.0.1", port=free_port(), api_key_file=str(folder / "keys"), allow_origins=(APP, SECOND)
    )
    with serving(config, folder) as server:
        server.wait_state("ready")
        yield server


def headers_for(server: ServerProcess, headers: dict[str, str]) -> dict[str, str]:
    """The headers, with the server's own origin where `HOST` stands for it."""
    return {name: server.url if value == "HOST" else value for name, value in headers.items()}


def cors_of(answer: httpx2.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_without_a_key_a_page_of_another_site_is_refused(shared: ServerProcess, headers: dict[str, str]) -> None:
    with shared.tcp(headers=headers_for(shared, headers)) as client:
        simple = client.post(CHAT, json=chat("a"), headers={"Content-Type": "text/plain"})
        for answer in (simple, client.get("/v1/models"), client.get("/v1/status"), client.get("/metrics")):
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden_origin")
            assert not cors_of(answer)


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_with_a_key_too(keyed: ServerProcess, headers: dict[str, str]) -> None:
    with keyed.tcp(headers=headers_for(keyed, headers) | {"Authorization": "Bearer a-key"}) as client:
        answer = client.post(CHAT, json=chat("a"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden_origin")
        assert "--allow-origin" in answer.json()["error"]["message"]
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("headers", OWN, ids=str)
def test_its_own_pages_and_programs_are_served(
    shared: ServerProcess, keyed: ServerProcess, headers: dict[str, str]
) -> None:
    for server in (shared, keyed):
        with server.tcp(headers=headers_for(server, headers) | {"Authorization": "Bearer a-key"}) as client:
            assert client.post(CHAT, json=chat("a")).status_code == 200


def test_on_the_socket_pages_are_refused_since_it_may_be_forwarded(shared: ServerProcess) -> None:
    with shared.http(headers={"Origin": "http://evil.example"}) as client:
        assert client.get("/v1/models").status_code == 403


def test_a_name_that_now_leads_here_is_refused_by_its_host(shared: ServerProcess) -> None:
    rebound = {"Host": "evil.example:80", "Origin": "http://evil.example:80", "Sec-Fetch-Site": "same-origin"}
    with shared.tcp(headers=rebound) as client:
        assert client.get("/v1/models").json()["error"]["code"] == "forbidden_host"


@pytest.mark.parametrize("origin", [APP, SECOND])
def test_a_page_that_is_allowed_reads_the_answer(keyed: ServerProcess, origin: str) -> None:
    page = {"Origin": origin, "Sec-Fetch-Site": "cross-site", "Authorization": "Bearer a-key"}
    with keyed.tcp(headers=page) as client:
        for stream in (False, True):
            answer = client.post(CHAT, json=chat("a b", stream=stream))
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == origin
            assert "Retry-After" in answer.headers["access-control-expose-headers"]
            assert answer.headers["vary"] == "Origin"
            assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", CHAT, 401), ("GET", "/v1/nothing", 404), ("POST", "/v1/models", 405), ("GET", "/livez", 200)],
)
def test_a_page_that_is_allowed_reads_errors_too(keyed: ServerProcess, method: str, path: str, status: int) -> None:
    with keyed.tcp(headers={"Origin": APP}) as client:
        answer = client.request(method, path)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, APP)


@pytest.mark.parametrize(
    "wanted", ["authorization,content-type", "x-resumable,last-event-id,x-request-timeout", "x-stainless-os"]
)
def test_a_browser_may_ask_first(keyed: ServerProcess, wanted: str) -> None:
    asked = {"Access-Control-Request-Headers": wanted, "Access-Control-Request-Private-Network": "true"}
    with keyed.tcp(headers=PREFLIGHT | asked) as client:
        answer = client.options(CHAT)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["access-control-allow-headers"] == wanted
    assert answer.headers["access-control-allow-private-network"] == "true"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://chat.example.evil.example"])
def test_a_browser_that_asks_for_another_page_is_told_nothing(
    shared: ServerProcess, keyed: ServerProcess, origin: str
) -> None:
    for server in (shared, keyed):
        with server.tcp(headers=PREFLIGHT | {"Origin": origin}) as client:
            answer = client.options(CHAT)
        assert answer.status_code in (400, 405)
        assert "access-control-allow-origin" not in answer.headers


def test_a_cache_between_does_not_mix_answers_up(keyed: ServerProcess) -> None:
    with keyed.tcp(headers={"Authorization": "Bearer a-key"}) as client:
        answer = client.get("/v1/models")
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["*", "null", "chat.example", "https://chat.example/", "https://a b", "HTTPS://x", "https://X"]
)
def test_what_is_no_origin_is_not_taken(origin: str) -> None:
    with pytest.raises(InvalidRequest, match=r"scheme://host\[:port\]"):
        Authenticator(None, [APP, origin])


@pytest.mark.parametrize(
    ("method", "path"), [("POST", f"{CHAT}/"), ("GET", "/v1/status/"), ("GET", "/metrics/"), ("GET", "/v1/models/")]
)
def test_no_redirect_shows_the_host_back(keyed: ServerProcess, method: str, path: str) -> None:
    with keyed.tcp(headers={"Host": "evil.example"}) as client:
        answer = client.request(method, path, follow_redirects=False)
    assert answer.status_code in (401, 404)
    assert "evil.example" not in answer.text + str(answer.headers)
