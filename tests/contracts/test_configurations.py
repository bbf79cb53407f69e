"""The configurations among the examples say nothing that the processor does not know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from neatlogs_processor.cli import build_parser
from neatlogs_processor.settings import CONFIG_VARIABLE, ENV_PREFIX, check_together, entries, load

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGURATIONS = REPOSITORY / "examples" / "configurations"
FILES = sorted(CONFIGURATIONS.glob("*.yaml"))

FLAGS = {flag for action in build_parser()._actions for flag in action.option_strings if flag.startswith("--")}
VARIABLES = {entry.variable for entry in entries()} | {CONFIG_VARIABLE}


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CONFIGURATIONS / name).read_text(encoding="utf-8"))
    return content


def commands(name: str) -> Iterator[dict[str, str]]:
    """The flags of each `neatlogs-processor ...` line in a configuration's comments."""
    text = (CONFIGURATIONS / name).read_text(encoding="utf-8")
    for line in re.findall(r"^#\s+neatlogs-processor (--.*)$", text, re.MULTILINE):
        words = line.split()
        yield dict(zip(words[::2], words[1::2], strict=True))


def settings_of(flags: dict[str, str]) -> Any:
    loaded = load({flag.removeprefix("--").replace("-", "_"): value for flag, value in flags.items()}, {})
    check_together(loaded.settings)
    return loaded.settings


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_flags_and_variables_exist(path: Path) -> None:
    """Every flag and every variable of the processor that a configuration names is one that it has."""
    text = path.read_text(encoding="utf-8")
    # kubectl's flags are not ours.
    ours = "\n".join(line for line in text.splitlines() if "kubectl" not in line)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours)) <= FLAGS
    assert set(re.findall(rf"{ENV_PREFIX}\w+", text)) <= VARIABLES


def test_the_collector_in_front_sends_where_the_processor_listens() -> None:
    """The address that the Collector exports to is the one that the command beside it listens on."""
    (flags,) = commands("collector-in-front.yaml")
    settings = settings_of(flags)
    configuration = read("collector-in-front.yaml")
    assert configuration["exporters"]["otlp_grpc"]["endpoint"] == str(settings.grpc_listen)
    receiving = configuration["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    assert receiving != str(settings.grpc_listen), "two programs cannot listen on one address"


def test_the_collector_behind_listens_where_the_processor_sends() -> None:
    """The address that the Collector receives on is the upstream of the command beside it."""
    (flags,) = commands("collector-behind.yaml")
    settings = settings_of(flags)
    receiving = read("collector-behind.yaml")["receivers"]["otlp"]["protocols"]["grpc"]
    assert receiving["endpoint"] == flags["--upstream-endpoint"]
    assert receiving["max_recv_msg_size_mib"] * 2**20 == settings.max_message_size
    assert receiving["endpoint"] != str(settings.grpc_listen), "two programs cannot listen on one address"


@pytest.mark.parametrize("name", ["collector-in-front.yaml", "collector-behind.yaml"])
def test_collector_pipelines_name_what_is_there(name: str) -> None:
    """Each pipeline of a Collector uses components that its configuration defines, and each is used."""
    configuration = read(name)
    used: dict[str, set[str]] = {"receivers": set(), "processors": set(), "exporters": set()}
    for pipeline in configuration["service"]["pipelines"].values():
        for kind, names in used.items():
            names.update(pipeline[kind])
    assert used == {kind: set(configuration[kind]) for kind in used}


def test_the_sidecar_s_variables_make_a_processor() -> None:
    """The variables of the Kubernetes sidecar are a configuration that the processor starts with."""
    sidecar, application = _containers()
    variables = {entry["name"]: entry["value"] for entry in sidecar["env"]}
    # The file is on the pod's volume, not here.
    headers_file = Path(variables.pop(f"{ENV_PREFIX}UPSTREAM_HEADERS_FILE"))
    settings = load({}, variables).settings
    check_together(settings)
    assert settings.grpc_listen.is_loopback
    (mount,) = sidecar["volumeMounts"]
    assert headers_file.parent == Path(mount["mountPath"])
    endpoint = {entry["name"]: entry["value"] for entry in application["env"]}["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert endpoint == f"http://localhost:{settings.grpc_listen.port}"


def test_the_sidecar_is_native_and_probed_from_inside() -> None:
    """The sidecar restarts always, as an init container; its probes use the command that asks over loopback."""
    sidecar, _ = _containers()
    assert sidecar["restartPolicy"] == "Always"
    for probe in ("startupProbe", "livenessProbe"):
        assert sidecar[probe]["exec"]["command"] == ["neatlogs-processor", "health"]
    assert "readinessProbe" not in sidecar


def test_the_pod_waits_longer_than_the_processor_drains() -> None:
    """The pod's grace period leaves the processor its whole shutdown timeout."""
    pod = read("kubernetes-sidecar.yaml")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > load({}, {}).settings.shutdown_timeout


def _containers() -> tuple[dict[str, Any], dict[str, Any]]:
    pod = read("kubernetes-sidecar.yaml")["spec"]["template"]["spec"]
    (sidecar,), (application,) = pod["initContainers"], pod["containers"]
    return sidecar, application
