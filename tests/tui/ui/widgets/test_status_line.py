from __future__ import annotations

from dataclasses import replace

import pytest

from llama_chat.ui.backend_state import BackendState
from llama_chat.ui.context_meter import Reading
from llama_chat.ui.widgets.status_line import Status, row

READY = Status(
    target_name="local",
    model="SmolLM2-135M-Instruct",
    backend=BackendState("ready"),
    reading=Reading(1204, 2048, is_exact=True),
    tokens_per_second=83.14,
)
LOADING = replace(READY, backend=BackendState("loading", progress=0.43), reading=Reading(), tokens_per_second=None)
CONNECTING = replace(LOADING, target_name="work", backend=BackendState("connecting"))
PENDING = replace(
    LOADING, target_name="chat/llama-chat", backend=BackendState("waiting for a pod", reason="status=Pending")
)
BROKEN = replace(READY, target_name="work", backend=BackendState("reconnecting", reason="the connection to h broke"))
QUEUED = replace(READY, backend=BackendState("ready", queued=3), is_answering=True, tokens_per_second=None)
FAILED = replace(LOADING, backend=BackendState("failed", reason="m.gguf is no model that llama.cpp can load"))


@pytest.mark.parametrize(
    ("status", "width", "shown"),
    [
        (READY, 76, "SmolLM2-135M-Instruct · local · ready    83.1 tok/s  ━━━━━───  1,204 / 2,048"),
        (READY, 70, "SmolLM2-135M-Instruct · local · ready        83.1 tok/s  1,204 / 2,048"),
        (READY, 60, "SmolLM2-135M-Instruct · local      83.1 tok/s  1,204 / 2,048"),
        (READY, 54, "SmolLM2-135M-Instruct        83.1 tok/s  1,204 / 2,048"),
        (READY, 40, "SmolLM2-135M-Instruct      1,204 / 2,048"),
        (READY, 30, "SmolLM2-135M-I…  1,204 / 2,048"),
        (LOADING, 60, "SmolLM2-135M-Instruct · local · loading 43%"),
        (replace(READY, is_saved=False), 70, "SmolLM2-135M-Instruct · local · not saved    83.1 tok/s  1,204 / 2,048"),
        (LOADING, 36, "SmolLM2-135M-Instruct · loading 43%"),
        (replace(READY, is_answering=True), 60, "SmolLM2-135M-Instruct · Esc stops  83.1 tok/s  1,204 / 2,048"),
        (replace(READY, backend=BackendState()), 60, "SmolLM2-135M-Instruct · starting   83.1 tok/s  1,204 / 2,048"),
        (CONNECTING, 60, "SmolLM2-135M-Instruct · work · connecting"),
        (PENDING, 80, "SmolLM2-135M-Instruct · chat/llama-chat · waiting for a pod: status=Pending"),
        (PENDING, 50, "SmolLM2-135M-Instruct · waiting for a pod: status…"),
        (BROKEN, 60, "SmolLM2-135M-Instruct · reconnecting: the co…  1,204 / 2,048"),
        (QUEUED, 60, "SmolLM2-135M-Instruct · queued at position 3   1,204 / 2,048"),
        (FAILED, 60, "SmolLM2-135M-Instruct · failed: m.gguf is no model that lla…"),
        (replace(READY, reading=Reading(1204, 2048)), 40, "SmolLM2-135M-Instruct     ~1,204 / 2,048"),
        (replace(READY, reading=Reading(None, 2048)), 40, "SmolLM2-135M-Instruct      context 2,048"),
        (replace(READY, reading=Reading()), 40, "SmolLM2-135M-Instruct         83.1 tok/s"),
        (replace(READY, hint="Ctrl+C again quits"), 60, "Ctrl+C again quits       83.1 tok/s  ━━━━━───  1,204 / 2,048"),
        (replace(READY, model="漢字" * 20), 40, "漢字漢字漢字漢字漢字漢字…  1,204 / 2,048"),
        (replace(READY, model="[b]x[/b]\x1b\n"), 40, "[b]x[/b]␛      83.1 tok/s  1,204 / 2,048"),
        (READY, 10, "1,204 / 2,048"),
        (READY, 0, "1,204 / 2,048"),
    ],
)
def test_what_has_no_room_is_left_out(status: Status, width: int, shown: str) -> None:
    assert row(status, width).plain.rstrip() == shown.rstrip()


def colours(status: Status) -> set[str]:
    return {str(span.style) for span in row(status, 76).spans}


@pytest.mark.parametrize(
    ("reading", "colour"),
    [
        (Reading(100, 2048, is_exact=True), "$primary"),
        (Reading(1900, 2048, is_exact=True), "$text-warning"),
        (Reading(2048, 2048, is_exact=True), "bold $text-error"),
        (Reading(4000, 2048, is_exact=False), "$text-warning"),
    ],
)
def test_the_meter_turns_before_and_when_it_is_full(reading: Reading, colour: str) -> None:
    assert colour in colours(replace(READY, reading=reading))
