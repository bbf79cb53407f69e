"""The Kubernetes objects in deploy/: read from files, or rendered by Helm, and what the processor is told in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from neatlogs_processor.cli import build_parser
from neatlogs_processor.settings import Loaded, check_together, load

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
CHART = DEPLOY / "helm" / "neatlogs-processor"

Manifest = dict[str, Any]

WORKLOADS = {"Deployment", "DaemonSet", "StatefulSet"}


def parsed(text: str) -> list[Manifest]:
    """Return the objects of a YAML text with several documents."""
    return [document for document in yaml.safe_load_all(text) if document]


def manifests(name: str) -> list[Manifest]:
    """Return the objects of a file in deploy/kubernetes."""
    return parsed((KUBERNETES / name).read_text(encoding="utf-8"))


def workload(objects: Sequence[Manifest]) -> Manifest:
    """Return the one object that makes pods."""
    (found,) = [one for one in objects if one["kind"] in WORKLOADS]
    return found


def pod(objects: Sequence[Manifest]) -> Manifest:
    """Return the specification of the pods."""
    spec: Manifest = workload(objects)["spec"]["template"]["spec"]
    return spec


def container(objects: Sequence[Manifest]) -> Manifest:
    """Return the processor's container, a sidecar or not."""
    spec = pod(objects)
    (found,) = [
        one for one in (*spec.get("initContainers", ()), *spec["containers"]) if one["name"] == "neatlogs-processor"
    ]
    one: Manifest = found
    return one


def settings_of(objects: Sequence[Manifest], folder: Path) -> Loaded:
    """Return the settings with which a pod's processor runs, as it would read them.

    Files of secrets are not here: each is looked for in the volume that would have it, and an empty one in `folder` is
    read instead.

    Raises:
        ConfigError: It would not start.
    """
    processor = container(objects)
    flags = vars(build_parser().parse_args(processor.get("args", [])))
    variables = {one["name"]: one["value"] for one in processor.get("env", [])}
    mounts = [mount["mountPath"] for mount in processor.get("volumeMounts", [])]
    for values in (flags, variables):
        for name, value in values.items():
            if not name.lower().endswith("_file"):
                continue
            assert any(Path(value).is_relative_to(mount) for mount in mounts), f"{value} is in no volume"
            empty = folder / Path(value).name
            empty.touch()
            values[name] = str(empty)
    loaded = load(flags, variables)
    check_together(loaded.settings)
    return loaded
