"""Reads manifests from stdin and checks those of KEDA and the Prometheus Operator; runs in the tools' environment.

The models ignore fields that they do not know, so what they write is compared with what they read.
"""

from __future__ import annotations

import sys
from typing import Any

import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject  # type: ignore[import-not-found,unused-ignore]
from cloudcoil.models.prometheus_operator.v1 import ServiceMonitor  # type: ignore[import-not-found,unused-ignore]

MODELS: dict[str, Any] = {"ScaledObject": ScaledObject, "ServiceMonitor": ServiceMonitor}


def main() -> None:
    """Names what was checked; ends with an error for what does not fit."""
    for manifest in yaml.safe_load_all(sys.stdin):
        model = MODELS.get(manifest["kind"])
        if model is None:
            continue
        written = model.model_validate(manifest).model_dump(by_alias=True, exclude_unset=True, mode="json")
        lost = _lost(manifest, written, manifest["kind"])
        if lost:
            sys.exit(f"unknown: {', '.join(lost)}")
        print(manifest["kind"], manifest["metadata"]["name"])


def _lost(given: Any, kept: Any, where: str) -> list[str]:
    """The fields of `given` that `kept` lacks."""
    if isinstance(given, dict):
        if not isinstance(kept, dict):
            return [where]
        return [name for key, value in given.items() for name in _lost(value, kept.get(key), f"{where}.{key}")]
    if isinstance(given, list):
        if not isinstance(kept, list) or len(kept) != len(given):
            return [where]
        return [name for one, other in zip(given, kept, strict=True) for name in _lost(one, other, f"{where}[]")]
    return [] if kept == given else [where]


if __name__ == "__main__":
    main()
