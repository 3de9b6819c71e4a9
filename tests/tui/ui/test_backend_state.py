"""What is known of a backend, in words for a person."""

from __future__ import annotations

import pytest

from llama_chat.ui.backend_state import BackendState


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (BackendState("ready", queued=3), "queued at position 3"),
        (BackendState("ready"), "reading the prompt …"),
        (BackendState("loading", progress=0.43), "waiting for the model: loading 43%"),
        (BackendState("waiting for a pod", reason="Pending"), "waiting for a pod …"),
        (BackendState("reconnecting"), "reconnecting …"),
        (BackendState("restarting"), "waiting for the model: restarting"),
    ],
)
def test_what_an_answer_waits_for(state: BackendState, text: str) -> None:
    assert state.waits_for == text
