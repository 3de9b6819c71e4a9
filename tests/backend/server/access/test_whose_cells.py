"""Over HTTP on the demo model: answers follow from their own words, and accounts find nothing of each other's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from llama_backend.server_config import ServerConfig
from llama_backend.wire.ipc import EngineConfig, KVSharing
from tests.bench.interleaving import interleave
from tests.support.server.harness import free_port, serving

LONG = "A story that somebody else may have sent as well. " * 8

Cached = Callable[..., int]


@pytest.mark.parametrize("unified", [False, True])
def test_conversations_that_begin_alike_are_answered_from_their_own_words(demo_model: Path, unified: bool) -> None:
    found = interleave(demo_model, unified, rounds=9, seed=1, threads=2)
    assert found.wrong == []
    assert found.asked > 15
    assert found.loaded > 5
    assert found.cached > 1000


@contextmanager
def server(folder: Path, model: Path, sharing: KVSharing) -> Iterator[Cached]:
    """A server with the keys of two accounts; how many tokens of a prompt a request of one of them finds."""
    keys = folder / "keys"
    keys.write_text("key-of-alice name=alice\nanother-of-alice name=alice\nkey-of-bob name=bob\nnameless")
    engine = EngineConfig(path=str(model), context=512, slots=4, threads=2, kv_sharing=sharing)
    config = ServerConfig(
        model="m", engine=engine, host="127.0.0.1", port=free_port(), socket=str(folder / "s"), api_key_file=str(keys)
    )
    with serving(config, folder) as running:
        running.wait_state("ready")

        def cached(key: str | None, prompt: str = LONG, **fields: Any) -> int:
            body = {"prompt": prompt, "max_tokens": 1} | fields
            if key is None:
                with running.http() as client:
                    answer = client.post("/v1/completions", json=body)
            else:
                url, headers = f"http://127.0.0.1:{config.port}/v1/completions", {"Authorization": f"Bearer {key}"}
                answer = httpx2.post(url, json=body, headers=headers, timeout=60)
            assert answer.status_code == 200, answer.text
            return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])

        yield cached


def test_an_account_finds_what_it_computed_and_nothing_of_others(tmp_path: Path, demo_model: Path) -> None:
    with server(tmp_path, demo_model, "account") as cached:
        assert cached("key-of-alice") == 0
        assert cached("another-of-alice") > 60
        for other in ("key-of-bob", "nameless", None):
            assert cached(other) == 0
        assert cached("key-of-alice", cache_salt="pepper") == 0
        assert cached("key-of-alice", cache_salt="pepper") > 60
        assert cached("key-of-alice", cache_salt="salt") == 0


def test_all_find_what_anybody_computed_where_that_is_wanted_and_a_salt_still_separates(
    tmp_path: Path, demo_model: Path
) -> None:
    with server(tmp_path, demo_model, "all") as cached:
        assert cached("key-of-alice") == 0
        for other in ("key-of-bob", "nameless", None):
            assert cached(other) > 60
        assert cached("key-of-bob", cache_salt="pepper") == 0
        assert cached("key-of-alice", cache_salt="pepper") > 60
