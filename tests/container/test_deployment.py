"""The rendered Deployment itself, run by `podman play kube`."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.container.manifests import Manifest, manifests, needs_kubectl, of_kind, one, pod_of
from tests.container.podman import IMAGE, KEY, folder_of_user, free_port, needs_image, openai_client, podman, wait_for

pytestmark = [needs_image, needs_kubectl, pytest.mark.timeout(300)]
OVERLAY = "local-cpu"
MODEL = "smollm2:135m"


@pytest.fixture
def url(tmp_path: Path, demo_model: Path) -> Iterator[str]:
    """Where the Deployment answers, with the model under the name that its settings give."""
    models, history = folder_of_user(tmp_path / "models"), folder_of_user(tmp_path / "history")
    models.joinpath(f"{MODEL}.gguf").write_bytes(demo_model.read_bytes())
    keys = tmp_path / "keys"
    keys.mkdir()
    keys.joinpath("keys").write_text(KEY)
    port = free_port()
    deployment = _for_podman(one(manifests(OVERLAY), "Deployment"), port, models=models, history=history, keys=keys)
    deployment["metadata"]["name"] += f"-{uuid.uuid4().hex[:8]}"  # a run that was cut off may have left its pod
    file = tmp_path / "pod.yaml"
    file.write_text(yaml.safe_dump_all([*of_kind(manifests(OVERLAY), "ConfigMap"), deployment]))
    pod = f"{deployment['metadata']['name']}-pod-0"
    try:
        _start(file, pod)
        yield f"http://127.0.0.1:{port}"
    finally:
        podman("pod", "rm", "--force", "--time=0", pod)


def _start(file: Path, pod: str) -> None:
    """Plays the file; podman may take its init container for running when it has ended, and starts no other then.

    So the container that serves is started as soon as podman knows that the one before it has ended.
    """
    said = podman("play", "kube", file, check=False)
    if "once init container" in said:
        podman("wait", f"{pod}-wait-for-weights")
        said = podman("start", f"{pod}-llama-chat", check=False)
    assert "Error" not in said, said


def _for_podman(deployment: Manifest, port: int, **folders: Path) -> Manifest:
    """The Deployment with what podman cannot read from a cluster: claims and the Secret are folders of this machine.

    The rest is as rendered, so the image's user, the read-only root, the settings and the waiting are the cluster's.
    """
    found: Manifest = copy.deepcopy(deployment)
    pod = pod_of(found)
    for volume in pod["volumes"]:
        if volume["name"] in folders:
            name: str = volume["name"]
            volume.clear()
            volume.update({"name": name, "hostPath": {"path": str(folders[name]), "type": "Directory"}})
    for container in [*pod["initContainers"], *pod["containers"]]:
        container["image"] = IMAGE
        _forget(container, "startupProbe", "livenessProbe", "readinessProbe", "lifecycle", "resources")
    pod["containers"][0]["ports"][0]["hostPort"] = port
    return found


def _forget(mapping: dict[str, Any], *keys: str) -> None:
    for key in keys:
        mapping.pop(key, None)


def test_the_deployment_serves(url: str) -> None:
    wait_for(f"{url}/readyz", 120)
    with openai_client(url) as client:
        assert [model.id for model in client.models.list()] == [MODEL]
        answer = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Say hello."}], max_tokens=8
        )
    assert answer.choices[0].message.content
