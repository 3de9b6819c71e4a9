"""What the image is built from is what the project asks for."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.container.manifests import CONTAINER, OVERLAYS, ROOT, containers, manifests, needs_kubectl

ENGINE = "llama-cpp-python"
RENEW = "container/README.md says how to renew container/requirements.txt"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def pinned(file: str) -> dict[str, Version]:
    """The versions in a file of pins, by package."""
    found = re.findall(r"^([\w.-]+)==(\S+)", (CONTAINER / file).read_text(), re.MULTILINE)
    return {name.lower().replace("_", "-"): Version(version) for name, version in found}


def test_every_dependency_is_pinned_to_a_version_that_fits(project: dict[str, Any]) -> None:
    pins = pinned("requirements.txt") | pinned("engine.txt")
    for wanted in map(Requirement, project["dependencies"]):
        name = wanted.name.lower().replace("_", "-")
        assert name in pins, f"{name}: {RENEW}"
        assert pins[name] in wanted.specifier, f"{name}: {RENEW}"


@pytest.mark.parametrize("file", ["requirements.txt", "engine.txt"])
def test_every_pin_has_its_digests(file: str) -> None:
    text = (CONTAINER / file).read_text()
    parts = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert parts
    assert all("--hash=sha256:" in part for part in parts)
    assert "://" not in text


def test_the_engine_is_compiled_and_not_taken_as_a_wheel() -> None:
    assert list(pinned("engine.txt")) == [ENGINE]
    assert ENGINE not in pinned("requirements.txt")


@needs_kubectl
@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if name != "local-cpu"])
def test_images_are_of_this_version(project: dict[str, Any], overlay: str) -> None:
    tags = [
        item["image"].partition(":")[2] for item in containers(manifests(overlay)) if "/llama-chat:" in item["image"]
    ]
    assert tags
    assert {tag.partition("-")[0] for tag in tags} == {project["version"]}
