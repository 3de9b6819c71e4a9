"""The weights Job's own command, in the image and the profile of its pod, against a hub on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.manifests import manifests, needs_kubectl, of_kind, one, pod_of
from tests.container.podman import IMAGE, folder_of_user, needs_image, podman, restricted
from tests.support.convert.local_hub import LocalHub

pytestmark = [needs_image, needs_kubectl, pytest.mark.timeout(300)]
OVERLAY = "local-cpu"
REPOSITORY = "bartowski/SmolLM2-135M-Instruct-GGUF"
FILE = "SmolLM2-135M-Instruct-Q4_K_M.gguf"
MODEL = "smollm2:135m"


@pytest.fixture
def hub(demo_model: Path) -> Iterator[LocalHub]:
    found = LocalHub()
    found.repositories[REPOSITORY] = {FILE: demo_model.read_bytes()}
    yield found
    found.close()


def test_weights_are_fetched_once(hub: LocalHub, tmp_path: Path, demo_model: Path) -> None:
    models = folder_of_user(tmp_path / "models")
    (tmp_path / "token").write_text("hf_secret")
    first = _run_job(hub, models, tmp_path / "token")
    installed = models / f"{MODEL}.gguf"
    assert installed.read_bytes() == demo_model.read_bytes()
    assert installed.stat().st_mode & 0o444 == 0o444
    assert first.splitlines()[0] == str(Path("/models", installed.name))
    sent = hub.sent.copy()
    assert _run_job(hub, models, tmp_path / "token").splitlines()[0] == first.splitlines()[0]
    assert hub.sent == sent
    assert not any("hf_secret" in headers.get("authorization", "") for _, headers in hub.requests)


def test_the_server_waits_for_what_the_job_writes() -> None:
    (settings,) = of_kind(manifests(OVERLAY), "ConfigMap")
    assert settings["data"]["LLAMA_CHAT_MODEL"] == MODEL


def _run_job(hub: LocalHub, models: Path, token: Path) -> str:
    """What the Job's container writes; it reaches the hub over this machine's own network."""
    container = pod_of(one(manifests(OVERLAY), "Job", "llama-chat-weights"))["containers"][0]
    options = ["--rm", "--network=host", f"--env=HF_ENDPOINT={hub.endpoint}", f"--volume={models}:/models"]
    options += [f"--env={item['name']}={item['value']}" for item in container["env"]]
    options += [f"--volume={token}:/etc/llama-chat/hub/token:ro", "--tmpfs=/var/lib/llama-chat:rw,mode=1777"]
    return podman("run", *restricted(), *options, IMAGE or "", *container["args"])
