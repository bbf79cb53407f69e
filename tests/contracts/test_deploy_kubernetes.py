"""The Kubernetes manifests are valid, fit together, and start the processor that they speak of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest

from neatlogs_processor.errors import ConfigError
from neatlogs_processor.service import _LAST_SECONDS
from neatlogs_processor.settings import Settings
from support.manifests import CHART, KUBERNETES, Manifest, container, manifests, parsed, pod, settings_of, workload
from support.processor import program

FILES = sorted(path.name for path in KUBERNETES.glob("*.yaml"))
FLEETS = [name for name in FILES if name != "sidecar.yaml"]
OLDEST = re.findall(r'^kubeVersion: ">=([\d.]+)-0"$', (CHART / "Chart.yaml").read_text(encoding="utf-8"), re.MULTILINE)
# Native sidecars are on by default from here.
OLDEST_OF_SIDECARS = "1.29.0"


def objects_of(kind: str, name: str) -> list[Manifest]:
    """The objects of a kind in a file."""
    return [one for one in manifests(name) if one["kind"] == kind]


def ports_of(settings: Settings) -> dict[str, int]:
    """The ports that a processor listens on, by the names that the manifests give them."""
    listeners = {
        "otlp-grpc": settings.grpc_listen,
        "otlp-http": settings.http_listen,
        "admin": settings.admin_listen,
    }
    return {name: address.port for name, address in listeners.items() if address is not None}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("version", ["oldest", "newest"])
def test_objects_are_what_kubernetes_takes(name: str, version: str) -> None:
    """Each object follows the schemas of the oldest Kubernetes that is named and of the newest, field by field."""
    oldest = OLDEST_OF_SIDECARS if name == "sidecar.yaml" else OLDEST[0]
    against = kubernetes_validate.latest_version() if version == "newest" else oldest.rpartition(".")[0]
    found = manifests(name)
    assert found
    for one in found:
        kubernetes_validate.validate(one, against, strict=True)


@pytest.mark.parametrize("name", FILES)
def test_the_processor_takes_what_it_is_told(name: str, tmp_path: Path) -> None:
    """Flags and variables of each container are known, and are a configuration that the processor starts with."""
    loaded = settings_of(manifests(name), tmp_path)
    assert loaded.settings.upstream_endpoint is not None
    assert loaded.settings.log_format == "json"


async def test_the_processor_starts_with_them_and_answers_the_probes(tmp_path: Path) -> None:
    """The flags of the gateway with a queue, on loopback and free ports, make a processor that is ready and lives."""
    described = container(manifests("statefulset.yaml"))
    (tmp_path / "headers").write_text("x-api-key=k\n", encoding="utf-8")
    replaced = {"/var/lib/neatlogs": str(tmp_path), "/etc/neatlogs-processor/upstream-headers": str(tmp_path)}
    arguments = []
    for argument in described["args"]:
        for there, here in replaced.items():
            argument = argument.replace(there, here)
        arguments.append(re.sub(r"=0\.0\.0\.0:\d+$", "=127.0.0.1:0", argument))
    async with program(*arguments, "--drain-delay", "0s") as started:
        line = await started.line("is ready")
        admin = re.search(r"admin on ([\d.:]+)", line)
        assert admin is not None
        async with httpx.AsyncClient(trust_env=False) as client:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                # The kubelet asks the pod's address.
                path = described[probe]["httpGet"]["path"]
                answer = await client.get(f"http://{admin[1]}{path}", headers={"host": "10.0.0.7:4319"})
                assert answer.status_code == 200


@pytest.mark.parametrize("name", FLEETS)
def test_ports_are_where_the_processor_listens(name: str, tmp_path: Path) -> None:
    """Container, probes, Services and NetworkPolicy speak of the ports on which the processor listens."""
    listening = ports_of(settings_of(manifests(name), tmp_path).settings)
    described = container(manifests(name))
    assert {port["name"]: port["containerPort"] for port in described["ports"]} == listening
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert described[probe]["httpGet"]["port"] == "admin"
    for service in objects_of("Service", name):
        ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
        assert ports == {port: listening[port] for port in ("otlp-grpc", "otlp-http")}
        assert all(port["targetPort"] == port["name"] for port in service["spec"]["ports"])
    (policy,) = objects_of("NetworkPolicy", name)
    allowed = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    assert allowed == set(listening)
    scraped = workload(manifests(name))["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"]
    assert int(scraped) == listening["admin"]


@pytest.mark.parametrize("name", FLEETS)
def test_objects_find_each_other(name: str) -> None:
    """Selectors select the pods, the autoscaler scales the workload, and every volume that is mounted is there."""
    described = workload(manifests(name))
    labels = described["spec"]["template"]["metadata"]["labels"]
    assert described["spec"]["selector"]["matchLabels"] == labels
    for service in objects_of("Service", name):
        assert service["spec"]["selector"] == labels
    for budget in objects_of("PodDisruptionBudget", name):
        assert budget["spec"]["selector"]["matchLabels"] == labels
    (policy,) = objects_of("NetworkPolicy", name)
    assert policy["spec"]["podSelector"]["matchLabels"] == labels
    for scaler in objects_of("HorizontalPodAutoscaler", name):
        target = scaler["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == (described["kind"], described["metadata"]["name"])
        assert "replicas" not in described["spec"], "a number here and an autoscaler would undo each other"
    if described["kind"] == "StatefulSet":
        assert described["spec"]["serviceName"] in {one["metadata"]["name"] for one in objects_of("Service", name)}
    volumes = {one["name"] for one in pod(manifests(name)).get("volumes", [])}
    volumes |= {one["metadata"]["name"] for one in described["spec"].get("volumeClaimTemplates", [])}
    assert {mount["name"] for mount in container(manifests(name)).get("volumeMounts", [])} == volumes
    (account,) = objects_of("ServiceAccount", name)
    assert pod(manifests(name))["serviceAccountName"] == account["metadata"]["name"]


@pytest.mark.parametrize("name", FILES)
def test_a_pod_has_the_time_that_a_processor_may_take_to_end(name: str, tmp_path: Path) -> None:
    """The grace period is longer than the delay, the timeout and the last seconds of the processor together."""
    settings = settings_of(manifests(name), tmp_path).settings
    needed = settings.drain_delay + settings.shutdown_timeout + _LAST_SECONDS
    assert pod(manifests(name))["terminationGracePeriodSeconds"] > needed


@pytest.mark.parametrize("name", FLEETS)
def test_a_pod_serves_on_until_others_know_that_it_goes(name: str, tmp_path: Path) -> None:
    """Behind a Service the processor drains for longer than a readiness probe takes, and is replaced before it goes."""
    settings = settings_of(manifests(name), tmp_path).settings
    probe = container(manifests(name))["readinessProbe"]
    assert settings.drain_delay >= probe["periodSeconds"] * probe["failureThreshold"]
    spec = workload(manifests(name))["spec"]
    strategy = spec.get("strategy") or spec.get("updateStrategy")
    if strategy is not None:
        assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


@pytest.mark.parametrize("name", FILES)
def test_a_container_may_do_nothing_that_it_need_not(name: str) -> None:
    """Not root, no capabilities, nothing to write to but volumes, no token of the cluster, bounded memory."""
    described = container(manifests(name))
    own, whole = described["securityContext"], pod(manifests(name)).get("securityContext", {})
    assert own["readOnlyRootFilesystem"] is True
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert {**whole, **own}["runAsNonRoot"] is True
    assert {**whole, **own}["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {"cpu", "memory"} <= described["resources"]["requests"].keys()
    assert "memory" in described["resources"]["limits"]
    if name in FLEETS:
        assert pod(manifests(name))["automountServiceAccountToken"] is False


def test_what_is_kept_is_on_the_volume(tmp_path: Path) -> None:
    """The directory of the durable queue lies on the volume of its own processor, and what may wait fits it."""
    found = manifests("statefulset.yaml")
    settings = settings_of(found, tmp_path).settings
    (claim,) = workload(found)["spec"]["volumeClaimTemplates"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container(found)["volumeMounts"]}
    assert settings.queue_dir is not None
    assert settings.queue_dir.is_relative_to(mounts[claim["metadata"]["name"]])
    size = re.fullmatch(r"(\d+)Gi", claim["spec"]["resources"]["requests"]["storage"])
    assert size is not None
    assert settings.queue_max_bytes + settings.queue_max_dead_bytes < 0.9 * int(size[1]) * 2**30
    assert not objects_of("HorizontalPodAutoscaler", "statefulset.yaml"), "who is scaled away delivers nothing"


def test_memory_that_is_bounded_is_memory_that_there_is(tmp_path: Path) -> None:
    """Each container's memory is at least four times what may be in flight, so that the limit is the processor's."""
    for name in FLEETS:
        settings = settings_of(manifests(name), tmp_path).settings
        limit = container(manifests(name))["resources"]["limits"]["memory"]
        size = re.fullmatch(r"(\d+)(Mi|Gi)", limit)
        assert size is not None
        assert int(size[1]) * {"Mi": 2**20, "Gi": 2**30}[size[2]] >= 4 * settings.max_bytes_in_flight


def test_a_node_s_own_processor_is_reached_through_the_service() -> None:
    """The DaemonSet's Service leads to the same node, and to nobody's port of the node, so that updates can surge."""
    (service,) = objects_of("Service", "daemonset.yaml")
    assert service["spec"]["internalTrafficPolicy"] == "Local"
    assert all("hostPort" not in port for port in container(manifests("daemonset.yaml"))["ports"])
    assert "hostNetwork" not in pod(manifests("daemonset.yaml"))


@pytest.mark.parametrize("name", ["deployment.yaml", "statefulset.yaml"])
def test_clients_that_balance_find_every_processor(name: str) -> None:
    """A headless Service has the addresses of the processors that are ready, and of no others."""
    (headless,) = [one for one in objects_of("Service", name) if one["spec"].get("clusterIP") == "None"]
    assert not headless["spec"].get("publishNotReadyAddresses", False)


def test_an_open_listener_is_named(tmp_path: Path) -> None:
    """Without --allow-insecure the same flags are refused: nobody opens a gateway by copying half of it."""
    found = manifests("deployment.yaml")
    arguments = container(found)["args"]
    arguments[:] = [argument for argument in arguments if not argument.startswith("--allow-insecure")]
    with pytest.raises(ConfigError, match="--allow-insecure"):
        settings_of(found, tmp_path)


def sidecar() -> tuple[dict[str, Any], dict[str, Any]]:
    """The sidecar and the application's container."""
    spec = pod(manifests("sidecar.yaml"))
    (processor,), (application,) = spec["initContainers"], spec["containers"]
    return processor, application


def test_the_application_sends_to_its_sidecar(tmp_path: Path) -> None:
    """The sidecar listens on the loopback interface of the pod, where its application sends to."""
    _, application = sidecar()
    settings = settings_of(manifests("sidecar.yaml"), tmp_path).settings
    assert settings.grpc_listen.is_loopback
    endpoint = {entry["name"]: entry["value"] for entry in application["env"]}["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert endpoint == f"http://localhost:{settings.grpc_listen.port}"


def test_the_sidecar_is_native_and_probed_from_inside() -> None:
    """The sidecar restarts always, as an init container; its probes use the command that asks over loopback."""
    processor, _ = sidecar()
    assert processor["restartPolicy"] == "Always"
    for probe in ("startupProbe", "livenessProbe"):
        assert processor[probe]["exec"]["command"] == ["neatlogs-processor", "health"]
    assert "readinessProbe" not in processor


@pytest.mark.parametrize("name", FILES)
def test_comments_name_flags_that_there_are(name: str) -> None:
    """Every flag that a comment names is one of the processor's, or kubectl's."""
    text = (KUBERNETES / name).read_text(encoding="utf-8")
    known = {f"--{field.replace('_', '-')}" for field in Settings.model_fields}
    ours = "\n".join(line for line in text.splitlines() if "kubectl" not in line)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours)) <= known
    assert parsed(text) == manifests(name)
