"""What no validator knows: how the times, the volumes, the address and the pods of an overlay belong together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.container.manifests import (
    CLUSTER_WIDE,
    COMPONENTS,
    OVERLAYS,
    TREE,
    Manifest,
    combined,
    containers,
    manifests,
    needs_kubectl,
    of_kind,
    one,
    parse,
    pod_of,
    variables,
)

pytestmark = needs_kubectl
ON_UFS = [name for name in OVERLAYS if name != "local-cpu"]
SERVING = [name for name in OVERLAYS if name != "vllm"]


def seconds(probe: Manifest) -> int:
    """How long a probe may fail."""
    return int(probe["periodSeconds"] * probe["failureThreshold"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_is_in_the_namespace_that_is_restricted(overlay: str) -> None:
    found = manifests(overlay)
    places = {item["metadata"].get("namespace") for item in found if item["kind"] not in CLUSTER_WIDE}
    assert places == {"llama-chat"}
    labels = one(found, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_keep_to_the_restricted_profile(overlay: str) -> None:
    for workload in of_kind(manifests(overlay), "Deployment", "Job"):
        pod = pod_of(workload)
        context = pod["securityContext"]
        assert context["runAsNonRoot"]
        assert (context["runAsUser"], context["runAsGroup"]) == (10001, 10001)
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
        assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume)
    for container in containers(manifests(overlay)):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_model_has_the_time_it_takes_to_come_from_its_volume(overlay: str) -> None:
    for workload in of_kind(manifests(overlay), "Deployment"):
        for container in pod_of(workload)["containers"]:
            probe = container.get("startupProbe")
            if probe is None:
                continue
            notes = workload["metadata"]["annotations"]
            reading = int(notes["llama-chat/weights-bytes"]) * 8 / (int(notes["llama-chat/volume-mbit"]) * 1e6)
            assert seconds(probe) >= 2 * reading
            assert workload["spec"]["progressDeadlineSeconds"] > seconds(probe)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_weights_of_the_notes_fit_into_memory(overlay: str) -> None:
    if overlay == "vllm":
        pytest.skip("its weights are in the GPUs")
    found = one(manifests(overlay), "Deployment")
    limit = pod_of(found)["containers"][0]["resources"]["limits"]["memory"]
    assert int(limit.removesuffix("Gi")) << 30 > int(found["metadata"]["annotations"]["llama-chat/weights-bytes"])


@pytest.mark.parametrize("overlay", SERVING)
def test_probes_ask_what_they_are_for_and_wait_for_the_answer(overlay: str) -> None:
    container = pod_of(one(manifests(overlay), "Deployment"))["containers"][0]
    for kind, path in (("startup", "/startupz"), ("liveness", "/livez"), ("readiness", "/readyz")):
        probe = container[f"{kind}Probe"]
        assert probe["httpGet"] == {"path": path, "port": "http"}
        assert probe["timeoutSeconds"] >= 5


@pytest.mark.parametrize("overlay", SERVING)
def test_streams_can_end_before_the_pod_is_killed(overlay: str) -> None:
    pod = pod_of(one(manifests(overlay), "Deployment"))
    container = pod["containers"][0]
    command, wait = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    drain = int(variables(container)["LLAMA_CHAT_DRAIN"])
    assert pod["terminationGracePeriodSeconds"] >= int(wait) + drain + 15
    leaves_services = container["readinessProbe"]["periodSeconds"] * container["readinessProbe"]["failureThreshold"]
    assert int(wait) > leaves_services


@pytest.mark.parametrize("overlay", SERVING)
def test_the_server_asks_for_the_key_of_the_secret(overlay: str) -> None:
    pod = pod_of(one(manifests(overlay), "Deployment"))
    container = pod["containers"][0]
    file = Path(variables(container)["LLAMA_CHAT_API_KEY_FILE"])
    mount = next(item for item in container["volumeMounts"] if item["mountPath"] == str(file.parent))
    volume = next(item for item in pod["volumes"] if item["name"] == mount["name"])
    assert volume["secret"]["secretName"] == "llama-chat-keys"
    assert mount["readOnly"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_in_the_tree(overlay: str) -> None:
    assert not of_kind(manifests(overlay), "Secret")
    names = {name for container in containers(manifests(overlay)) for name in variables(container)}
    assert not [name for name in names if name.endswith(("TOKEN", "API_KEY"))]


@pytest.mark.parametrize("overlay", SERVING)
def test_only_the_job_writes_weights(overlay: str) -> None:
    found = manifests(overlay)
    pod = pod_of(one(found, "Deployment"))
    for container in [*pod["initContainers"], *pod["containers"]]:
        assert next(item for item in container["volumeMounts"] if item["name"] == "models")["readOnly"]
    job = one(found, "Job", "llama-chat-weights")
    assert (job["spec"]["parallelism"], job["spec"]["completions"]) == (1, 1)
    mounts = pod_of(job)["containers"][0]["volumeMounts"]
    assert "readOnly" not in next(item for item in mounts if item["name"] == "models")


@pytest.mark.parametrize("overlay", SERVING)
def test_what_the_server_waits_for_is_what_the_settings_name(overlay: str) -> None:
    found = manifests(overlay)
    pod = pod_of(one(found, "Deployment"))
    waiting, serving = pod["initContainers"][0], pod["containers"][0]
    assert waiting["envFrom"] == serving["envFrom"]
    settings = of_kind(found, "ConfigMap")
    name = serving["envFrom"][0]["configMapRef"]["name"]
    assert next(item for item in settings if item["metadata"]["name"] == name)["data"]["LLAMA_CHAT_MODEL"]


@pytest.mark.parametrize("overlay", ON_UFS)
def test_volumes_are_as_uk8s_wants_them(overlay: str) -> None:
    found = manifests(overlay)
    volumes, claims = of_kind(found, "PersistentVolume"), of_kind(found, "PersistentVolumeClaim")
    assert {item["metadata"]["name"] for item in volumes} == {"llama-chat-models", "llama-chat-history"}
    for volume in volumes:
        spec = volume["spec"]
        assert spec["mountOptions"] == ["nolock", "nfsvers=4.0"]
        assert re.fullmatch(r"\d+(\.\d+){3}", spec["nfs"]["server"])
        assert spec["nfs"]["server"] != "0.0.0.0"
        assert (spec["storageClassName"], spec["persistentVolumeReclaimPolicy"]) == ("", "Retain")
    for claim in claims:
        spec = claim["spec"]
        assert spec["accessModes"] == ["ReadWriteMany"]
        assert (spec["storageClassName"], spec["volumeName"]) == ("", claim["metadata"]["name"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_is_public(overlay: str) -> None:
    found = manifests(overlay)
    for service in of_kind(found, "Service"):
        if service["spec"].get("type") == "LoadBalancer":
            notes = service["metadata"]["annotations"]
            assert notes["service.beta.kubernetes.io/ucloud-load-balancer-type"] == "inner"
        else:
            assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
    assert not of_kind(found, "Ingress")
    policy = one(found, "NetworkPolicy", "default-deny")["spec"]
    assert policy == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_updates_and_drains_of_nodes_cannot_lock_up(overlay: str) -> None:
    found = manifests(overlay)
    strategy = one(found, "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxSurge": 0, "maxUnavailable": 1}
    for budget in of_kind(found, "PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] == 1
        assert "minAvailable" not in budget["spec"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_and_policies_select_pods_that_exist(overlay: str) -> None:
    found = manifests(overlay)
    pods: list[dict[str, str]] = [
        item["spec"]["template"]["metadata"]["labels"] for item in of_kind(found, "Deployment", "Job")
    ]
    for item in of_kind(found, "Service", "NetworkPolicy", "PodDisruptionBudget"):
        selector: dict[str, Any] = item["spec"].get("selector") or item["spec"].get("podSelector") or {}
        wanted: dict[str, str] = selector.get("matchLabels", selector)
        assert any(wanted.items() <= labels.items() for labels in pods), item["metadata"]["name"]


@pytest.mark.parametrize("overlay", ON_UFS)
def test_images_have_a_version_of_a_registry(overlay: str) -> None:
    for container in containers(manifests(overlay)):
        name, _, tag = container["image"].partition(":")
        assert name.startswith("uhub.service.ucloud.cn/"), name
        assert tag not in ("", "latest")
    assert one(manifests(overlay), "ServiceAccount")["imagePullSecrets"] == [{"name": "uhub"}]


def test_gpus_are_asked_for_where_they_are_used() -> None:
    pod = pod_of(one(manifests("uk8s-cuda"), "Deployment"))
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert variables(pod["containers"][0])["LLAMA_CHAT_GPU_LAYERS"] == "-1"
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "nvidia.com/gpu" not in str(manifests("uk8s-cpu"))


def test_a_shared_gpu_is_memory_and_processors_of_one(scratch: Path) -> None:
    found = parse(combined(scratch, "storage-ufs", "cuda", "gpu-share-hami"))
    pod = pod_of(one(found, "Deployment"))
    limits = pod["containers"][0]["resources"]["limits"]
    assert {name.partition("/")[2] for name in limits if name.startswith("nvidia.com/")} == {
        "gpu",
        "gpumem",
        "gpucores",
    }
    assert pod["nodeSelector"] == {"gpu": "on"}


def test_more_pods_come_for_requests_that_wait() -> None:
    found = manifests("uk8s-cuda-scaled")
    assert "replicas" not in one(found, "Deployment")["spec"]
    scaled = one(found, "ScaledObject")["spec"]
    (trigger,) = scaled["triggers"]
    assert trigger["metadata"]["query"].startswith("sum(llama_chat_requests_queued{")
    assert trigger["metadata"]["query"].endswith("or vector(0)")
    assert scaled["minReplicaCount"] >= 1
    assert scaled["cooldownPeriod"] >= 300


def test_the_other_autoscaler_asks_for_the_same(scratch: Path) -> None:
    found = parse(combined(scratch, "storage-ufs", "metrics", "autoscale-hpa"))
    (metric,) = one(found, "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == "llama_chat_requests_queued"
    assert "replicas" not in one(found, "Deployment")["spec"]


def test_several_pods_write_no_common_history() -> None:
    container = pod_of(one(manifests("uk8s-cuda-scaled"), "Deployment"))["containers"][0]
    names = [item["name"] for item in container["env"]]
    assert names.index("NODE_NAME") < names.index("LLAMA_CHAT_DATA_DIR")
    assert variables(container)["LLAMA_CHAT_DATA_DIR"] == "/var/lib/llama-chat/$(NODE_NAME)"


def test_requests_go_through_the_router_and_metrics_around_it() -> None:
    found = manifests("uk8s-cuda-scaled")
    targets = {
        item["metadata"]["name"]: item["spec"]["selector"]["app.kubernetes.io/component"]
        for item in of_kind(found, "Service")
    }
    assert targets == {"llama-chat": "router", "llama-chat-ulb": "router", "llama-chat-pods": "backend"}
    label = one(found, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    monitored = [item for item in of_kind(found, "Service") if label.items() <= item["metadata"]["labels"].items()]
    assert [item["metadata"]["name"] for item in monitored] == ["llama-chat-pods"]


def test_https_ends_at_a_balancer_inside_the_vpc(scratch: Path) -> None:
    ingress = one(parse(combined(scratch, "storage-ufs", "alb-tls")), "Ingress")
    assert ingress["metadata"]["annotations"]["alb.ingress.kubernetes.io/load-balancer-type"] == "inner"
    assert ingress["spec"]["ingressClassName"] == "alb"
    (tls,) = ingress["spec"]["tls"]
    assert tls["hosts"] == [ingress["spec"]["rules"][0]["host"]]


def test_the_server_can_speak_https_itself(scratch: Path) -> None:
    found = parse(combined(scratch, "storage-ufs", "tls", "ulb-inner"))
    container = pod_of(one(found, "Deployment"))["containers"][0]
    for kind in ("startup", "liveness", "readiness"):
        assert container[f"{kind}Probe"]["httpGet"]["scheme"] == "HTTPS"
    mounts = {item["mountPath"] for item in container["volumeMounts"]}
    for name in ("CERT", "KEY"):
        assert str(Path(variables(container)[f"LLAMA_CHAT_TLS_{name}"]).parent) in mounts
    assert one(found, "Service")["spec"]["ports"][0]["name"] == "https"


def test_every_component_is_in_a_test() -> None:
    """Those of no overlay are rendered above, by name."""
    used = {line.rpartition("/")[2] for path in TREE.glob("overlays/*/*.yaml") for line in _components(path)}
    assert used | {"alb-tls", "autoscale-hpa", "gpu-share-hami", "tls"} == set(COMPONENTS)


def _components(path: Path) -> list[str]:
    return re.findall(r"^  - (\.\./\.\./components/[\w-]+)$", path.read_text(), re.MULTILINE)
