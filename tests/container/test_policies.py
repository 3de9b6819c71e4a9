"""The tree and the Containerfile before the validators of others; they come with `make test-image`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.container.manifests import CONTAINER, OVERLAYS, ROOT, combined, needs_kubectl, rendered

BIN = os.environ.get("CONTAINER_TOOLS")
pytestmark = [
    needs_kubectl,
    pytest.mark.skipif(BIN is None, reason="CONTAINER_TOOLS names no folder with the validators (make test-image)"),
    pytest.mark.timeout(300),
]
MODELS = Path(__file__).with_name("crd_models.py")
"""It imports what only the tools' environment has."""
UNUSED = (
    ("storage-ufs", "cuda", "gpu-share-hami", "metrics", "autoscale-hpa"),
    ("storage-ufs", "alb-tls"),
    ("storage-ufs", "tls"),
)

Check = Callable[..., str]


@pytest.fixture
def tool() -> Check:
    """Runs a validator, which has to be content; returns what it says."""

    def run(name: str, *args: str | Path, stdin: str | None = None) -> str:
        done = subprocess.run(
            [Path(BIN or "") / name, *args], input=stdin, capture_output=True, text=True, check=False, cwd=ROOT
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture
def everything(scratch: Path, tmp_path: Path) -> list[Path]:
    """All overlays as files, and the components that none of them has."""
    texts = {name: rendered(name) for name in OVERLAYS}
    texts |= {f"base-{number}": combined(scratch, *names) for number, names in enumerate(UNUSED)}
    files = []
    for name, text in texts.items():
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(text)
    return files


@pytest.mark.parametrize("version", ["1.30", "1.32", "1.34"])
def test_schemas(tool: Check, everything: list[Path], version: str) -> None:
    said = tool("kubernetes-validate", "--strict", "--kubernetes-version", version, *everything)
    unknown = {line.split("kind ")[1].split()[0] for line in said.splitlines() if "find schema" in line}
    assert unknown == {"ScaledObject", "ServiceMonitor"}


def test_resources_of_operators(tool: Check) -> None:
    said = tool("python", MODELS, stdin=rendered("uk8s-cuda-scaled"))
    assert set(said.splitlines()) == {"ScaledObject llama-chat", "ServiceMonitor llama-chat"}


def test_a_misspelt_field_is_found(tool: Check, tmp_path: Path) -> None:
    text = rendered("uk8s-cuda-scaled")
    with pytest.raises(AssertionError, match=r"unknown: ScaledObject\.spec\.cooldownPeriods"):
        tool("python", MODELS, stdin=text.replace("cooldownPeriod:", "cooldownPeriods:"))
    (tmp_path / "wrong.yaml").write_text(text.replace("runAsNonRoot:", "runAsNonRooot:"))
    with pytest.raises(AssertionError, match="runAsNonRooot"):
        tool("kubernetes-validate", "--strict", "--kubernetes-version", "1.32", tmp_path / "wrong.yaml")


def test_security_of_the_manifests(tool: Check, everything: list[Path]) -> None:
    """Exceptions are annotations of what they are for, with the reason."""
    files = [part for file in everything for part in ("-f", file)]
    tool("checkov", *files, "--framework", "kubernetes", "--compact", "--quiet", "--skip-download")


def test_the_containerfile(tool: Check, tmp_path: Path) -> None:
    """Exceptions are comments at the line, with the reason."""
    tool("hadolint", CONTAINER / "Containerfile")
    (tmp_path / "Dockerfile").write_text((CONTAINER / "Containerfile").read_text())
    tool(
        "checkov", "-f", tmp_path / "Dockerfile", "--framework", "dockerfile", "--compact", "--quiet", "--skip-download"
    )
