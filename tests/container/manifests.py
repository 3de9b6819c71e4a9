"""The kustomize tree as Kubernetes would get it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "container"
TREE = CONTAINER / "kustomize"
OVERLAYS = sorted(path.name for path in (TREE / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (TREE / "components").iterdir())
CLUSTER_WIDE = {"Namespace", "PersistentVolume"}

Manifest = dict[str, Any]

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl to render with")


@cache
def rendered(overlay: str) -> str:
    """An overlay as YAML."""
    return _build(TREE / "overlays" / overlay)


@cache
def manifests(overlay: str) -> list[Manifest]:
    return parse(rendered(overlay))


def combined(folder: Path, *components: str) -> str:
    """The base with components that no overlay has, as YAML; `folder` is an empty one inside the tree."""
    lines = ["apiVersion: kustomize.config.k8s.io/v1beta1", "kind: Kustomization", "namespace: llama-chat"]
    lines += ["resources: [../base]", "components:", *(f"  - ../components/{name}" for name in components)]
    folder.joinpath("kustomization.yaml").write_text("\n".join(lines))
    return _build(folder)


def parse(text: str) -> list[Manifest]:
    return [found for found in yaml.safe_load_all(text) if found]


def one(found: Iterable[Manifest], kind: str, name: str = "llama-chat") -> Manifest:
    return next(item for item in found if (item["kind"], item["metadata"]["name"]) == (kind, name))


def of_kind(found: Iterable[Manifest], *kinds: str) -> list[Manifest]:
    return [item for item in found if item["kind"] in kinds]


def pod_of(workload: Manifest) -> Manifest:
    """The pod's specification in a Deployment or Job."""
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def containers(found: Iterable[Manifest]) -> Iterator[Manifest]:
    for workload in of_kind(found, "Deployment", "Job"):
        pod = pod_of(workload)
        yield from [*pod.get("initContainers", []), *pod["containers"]]


def variables(container: Manifest) -> dict[str, str]:
    """The environment as far as it is written out."""
    return {item["name"]: item["value"] for item in container.get("env", []) if "value" in item}


def _build(folder: Path) -> str:
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
