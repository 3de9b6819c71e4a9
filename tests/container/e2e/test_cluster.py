"""The local overlay in a real cluster: applied, asked from inside and outside, a pod taken away under a stream."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.manifests import TREE

CONTEXT = os.environ.get("E2E_CONTEXT", "")
KUBECONFIG = os.environ.get("KUBECONFIG", str(Path.home() / ".kube" / "config"))
"""Read here, since tests get a home of their own."""
NAMESPACE = "llama-chat"
pytestmark = [
    pytest.mark.skipif(not CONTEXT, reason="E2E_CONTEXT names no context of a cluster for tests"),
    pytest.mark.timeout(1800),
]


def kubectl(*args: str | Path, stdin: str | None = None) -> str:
    """What kubectl writes; it has to succeed."""
    command = ["kubectl", "--kubeconfig", KUBECONFIG, "--context", CONTEXT, "--namespace", NAMESPACE, *args]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def deployed() -> Iterator[None]:
    """The overlay in its namespace, ready; the namespace must not exist before, and is removed after."""
    kubectl("create", "-f", TREE / "base" / "namespace.yaml")
    try:
        kubectl("create", "secret", "generic", "llama-chat-keys", "--from-literal=keys=e2e-key")
        kubectl("apply", "-k", TREE / "overlays" / "local-cpu")
        kubectl("wait", "job/llama-chat-weights", "--for=condition=Complete", "--timeout=900s")
        kubectl("rollout", "status", "deployment/llama-chat", "--timeout=600s")
        yield
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--wait=true")


def ask(*args: str) -> subprocess.Popen[str]:
    """A question through a port-forward, with the key of the Secret."""
    target = f"kube://{NAMESPACE}/llama-chat?context={CONTEXT}&secret=llama-chat-keys"
    command = [sys.executable, "-m", "llama_chat", "ask", "--target", target, *args]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=os.environ | {"KUBECONFIG": KUBECONFIG}, stdin=subprocess.DEVNULL, stdout=pipe, text=True
    )


def test_it_answers_inside(deployed: None) -> None:
    assert kubectl("exec", "deploy/llama-chat", "--", "llama-chat", "ask", "--max-tokens", "8", "Say hello.").strip()


def test_it_answers_through_a_port_forward(deployed: None) -> None:
    with ask("--max-tokens", "8", "Say hello.") as asked:
        assert asked.stdout is not None
        assert asked.stdout.read().strip()
    assert asked.returncode == 0


def test_an_answer_outlives_its_pod(deployed: None) -> None:
    pod = kubectl("get", "pods", "-l", "app.kubernetes.io/component=backend", "-o", "name").strip()
    with ask("-o", "ignore_eos", "true", "--max-tokens", "300", "Count to one hundred.") as asked:
        assert asked.stdout is not None
        first = asked.stdout.read(1)
        kubectl("delete", pod, "--wait=false")
        assert len(first + asked.stdout.read()) > 300
    assert asked.returncode == 0
    kubectl("rollout", "status", "deployment/llama-chat", "--timeout=600s")
