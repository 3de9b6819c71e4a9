"""The names of headers, which other people's programs know."""

from __future__ import annotations

from llama_backend.wire import headers


def test_the_names_stay_as_they_are_documented() -> None:
    names = {name: value for name, value in vars(headers).items() if name.isupper()}
    assert names == {
        "RESUMABLE": "X-Resumable",
        "LAST_EVENT_ID": "Last-Event-ID",
        "REQUEST_TIMEOUT": "X-Request-Timeout",
        "SHOULD_RETRY": "X-Should-Retry",
        "SESSION_ID": "X-Session-ID",
    }
