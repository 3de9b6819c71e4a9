"""Servers for the tests: one on a fake engine for all, and others to order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from llama_backend.server_config import ServerConfig
from llama_backend.wire.ipc import EngineConfig
from tests.support.server.fake_engine import FakeModel
from tests.support.server.harness import ServerProcess, fake_config, free_port, serving

Serve = Callable[..., ServerProcess]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server on a fake engine for all tests that leave it as they find it; on the socket and on TCP."""
    folder = tmp_path_factory.mktemp("shared")
    config = fake_config(folder, host="127.0.0.1", port=free_port(), heartbeat=0.2)
    with serving(config, folder) as server:
        server.wait_state("ready")
        yield server


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Iterator[ServerProcess]:
    """One server on the demo model for all tests that need what only a model does."""
    folder = tmp_path_factory.mktemp("real")
    engine = EngineConfig(path=str(demo_model), context=512, slots=2)
    config = ServerConfig(model="smollm2:135m", engine=engine, socket=str(folder / "s.sock"))
    with serving(config, folder) as server:
        server.wait_state("ready")
        yield server


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts servers on a fake engine that end with the test."""
    with ExitStack() as stack:

        def start(model: FakeModel | None = None, ready: bool = True, **settings: Any) -> ServerProcess:
            server = stack.enter_context(serving(fake_config(tmp_path, model, **settings), tmp_path))
            if ready:
                server.wait_state("ready")
            return server

        yield start
