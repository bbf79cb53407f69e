"""The Helm chart renders what the manifests say, and whatever its values say the processor takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from support import chart_schema
from support.manifests import CHART, Manifest, container, manifests, parsed, pod, settings_of, workload

helm = pytest.importorskip("helm_python", reason="Helm as a library (helm-python-sdk) is not built for this platform")

MODES = ("deployment", "daemonset", "statefulset")
RELEASE = "neatlogs-processor"

# What Helm adds to the labels of an object.
OF_HELM = {"helm.sh/chart", "app.kubernetes.io/managed-by"}


@pytest.fixture(scope="module")
def chart() -> Iterator[Any]:
    """The chart, as Helm reads it."""
    with helm.Chart.load(str(CHART)) as loaded:
        yield loaded


def rendered(chart: Any, values: dict[str, Any]) -> list[Manifest]:
    """What Helm would install."""
    files = chart.render(values, name=RELEASE, namespace="telemetry")
    return [one for name, text in files.items() if name.endswith(".yaml") for one in parsed(text)]


def values_of(mode: str) -> dict[str, Any]:
    """The values that make the manifest of a mode."""
    values: dict[str, Any] = yaml.safe_load((CHART / "ci" / f"{mode}-values.yaml").read_text(encoding="utf-8"))
    return values


def comparable(objects: list[Manifest]) -> dict[tuple[str, str], Manifest]:
    """Objects by kind and name, without what Helm adds, and flags in no order."""
    found = {}
    for one in objects:
        labels = one["metadata"]["labels"]
        one["metadata"]["labels"] = {name: value for name, value in labels.items() if name not in OF_HELM}
        found[one["kind"], one["metadata"]["name"]] = one
    container(objects)["args"].sort()
    return found


def test_the_schema_of_the_values_knows_every_setting() -> None:
    """A setting cannot be added, renamed or removed without the chart's values following."""
    assert chart_schema.current() == chart_schema.schema(), "run: cd tests && python -m support.chart_schema"


def test_helm_finds_nothing_wrong() -> None:
    """`helm lint` has no error and no warning; that a chart should have a picture is no more than a hint."""
    found = helm.lint(str(CHART))
    assert found["errors"] == []
    assert [one["error"] for one in found["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("mode", MODES)
def test_the_chart_renders_the_manifest(chart: Any, mode: str) -> None:
    """With the values of a mode, Helm makes the very objects of the file in deploy/kubernetes."""
    assert comparable(rendered(chart, values_of(mode))) == comparable(manifests(f"{mode}.yaml"))


VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "scaled by requests in flight": {
        "autoscaling": {
            "metrics": [
                {
                    "type": "Pods",
                    "pods": {
                        "metric": {"name": "neatlogs_processor_requests_in_flight"},
                        "target": {"type": "AverageValue", "averageValue": "50"},
                    },
                }
            ]
        }
    },
    "tls and tokens": {
        "secretFiles": {
            "tls_cert_file": {"secret": "tls", "key": "tls.crt"},
            "tls_key_file": {"secret": "tls", "key": "tls.key"},
            "tls_client_ca_file": {"secret": "tls", "key": "ca.crt"},
            "auth_tokens_file": {"secret": "clients", "key": "tokens"},
            "page_token_file": {"secret": "page", "key": "token"},
        },
        "config": {"allow_insecure": []},
    },
    "without HTTP": {"config": {"http_listen": "none"}},
    "a fixed number": {"autoscaling": {"enabled": False}, "replicas": 5},
    "numbers, switches and lists": {
        "config": {
            "max_concurrent_requests": 1_000_000,
            "browser_key_rate": 2.5,
            "explain": True,
            "console": False,
            "forward_headers": ["x-api-key", "x-tenant"],
            "drain_delay": "1500ms",
            "shutdown_timeout": "2m",
            "log_format": None,
        }
    },
    "a store and its page": {
        "mode": "statefulset",
        "replicas": 1,
        "secretFiles": {"page_token_file": {"secret": "page", "key": "token"}},
        "config": {
            "upstream_endpoint": None,
            "store": "/var/lib/neatlogs/traces.db",
            "allowed_hosts": ["*.example.com"],
        },
    },
    "a store that all share": {
        "secretFiles": {"store_password_file": {"secret": "clickhouse", "key": "password"}},
        "config": {"upstream_endpoint": None, "store": "clickhouses://traces@clickhouse.example.com:8443/otel"},
        "networkPolicy": {"upstream": {"ports": [{"port": 8443, "protocol": "TCP"}]}},
    },
    "end users on every span": {
        "mode": "statefulset",
        "replicas": 1,
        "config": {"queue_dir": "/var/lib/neatlogs/queue", "inherit": True, "inherit_wait": "30s"},
    },
    "whom the operator of Prometheus asks": {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    "somewhere else": {
        "nameOverride": "gateway",
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "imagePullSecrets": [{"name": "registry"}],
        "image": {"repository": "registry.example.com/processor", "tag": "1.2.3"},
        "priorityClassName": "high",
        "podLabels": {"team": "platform"},
        "service": {"annotations": {"a": "b"}},
    },
}


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_every_value_makes_objects_that_kubernetes_and_the_processor_take(
    chart: Any, values: dict[str, Any], tmp_path: Path
) -> None:
    """Whatever is chosen, objects follow the schema, flags are a configuration, and the pod has time to end."""
    found = rendered(chart, values)
    for one in found:
        if one["kind"] != "PodMonitor":
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)
    settings = settings_of(found, tmp_path).settings
    needed = settings.drain_delay + settings.shutdown_timeout + 10
    assert pod(found)["terminationGracePeriodSeconds"] > needed
    assert {mount["name"] for mount in container(found).get("volumeMounts", [])} == {
        *(one["name"] for one in pod(found).get("volumes", [])),
        *(one["metadata"]["name"] for one in workload(found)["spec"].get("volumeClaimTemplates", [])),
    }


def test_settings_become_flags_as_the_processor_reads_them(chart: Any, tmp_path: Path) -> None:
    """Large and broken numbers, switches, lists and a value that is taken back arrive as they were meant."""
    values = VARIANTS["numbers, switches and lists"]
    settings = settings_of(rendered(chart, values), tmp_path).settings
    assert settings.max_concurrent_requests == 1_000_000
    assert settings.browser_key_rate == 2.5
    assert (settings.explain, settings.console) == (True, False)
    assert settings.forward_headers == ("x-api-key", "x-tenant")
    assert (settings.drain_delay, settings.shutdown_timeout) == (1.5, 120)
    assert settings.log_format == "text"


def test_what_waits_for_its_root_lies_on_a_volume_of_its_own(chart: Any, tmp_path: Path) -> None:
    """With --inherit each processor keeps a volume over restarts, and the directory of held spans is on it."""
    found = rendered(chart, VARIANTS["end users on every span"])
    settings = settings_of(found, tmp_path).settings
    assert (settings.inherit, settings.inherit_wait) == (True, 30)
    (mount,) = container(found)["volumeMounts"]
    assert Path(mount["mountPath"]) in Path("/var/lib/neatlogs/queue").parents
    (claim,) = workload(found)["spec"]["volumeClaimTemplates"]
    assert (mount["name"], claim["spec"]["accessModes"]) == (claim["metadata"]["name"], ["ReadWriteOnce"])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"config": {"upstream_endpont": "a:1"}}, "upstream_endpont"),
        ({"config": {"upstream_headers": "x-api-key=k"}}, "upstream_headers"),
        ({"config": {"explain": "yes"}}, "explain"),
        ({"secretFiles": {"upstream_header_file": {"secret": "s", "key": "k"}}}, "upstream_header_file"),
        ({"secretFiles": {"auth_tokens_file": {"secret": "s"}}}, "key"),
        ({"mode": "job"}, "mode"),
        ({"replica": 3}, "replica"),
    ],
)
def test_values_that_are_misspelt_or_secret_are_refused(chart: Any, values: dict[str, Any], told: str) -> None:
    """A value that the chart does not know, or that belongs into a secret, is an error that names it."""
    with pytest.raises(helm.HelmError, match=told):
        chart.validate_schema(values)


def test_the_chart_without_an_admin_port_is_refused(chart: Any) -> None:
    """The probes ask at the admin port, so a chart without it says so instead of making pods that are never ready."""
    with pytest.raises(helm.HelmError, match="admin_listen needs a port"):
        rendered(chart, {"config": {"admin_listen": "none"}})


def test_versions_are_those_of_the_package() -> None:
    """Chart, application and the images of the manifests have the version of the package."""
    ours = re.search(r'^version = "(.+)"$', (CHART.parents[2] / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert ours is not None
    version = ours[1]
    about = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert (about["version"], about["appVersion"]) == (version, version)
    for mode in (*MODES, "sidecar"):
        assert container(manifests(f"{mode}.yaml"))["image"] == f"neatlogs-processor:{version}"


def test_the_notes_say_where_to_send(chart: Any) -> None:
    """After an installation Helm prints the endpoint of the Service, and the name for clients that balance."""
    notes = chart.render({}, name=RELEASE, namespace="telemetry")[f"{RELEASE}/templates/NOTES.txt"]
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=http://neatlogs-processor.telemetry:4317" in notes
    assert "dns:///neatlogs-processor-headless.telemetry:4317" in notes


def test_every_value_is_in_the_schema() -> None:
    """values.yaml says a default for everything that the schema knows, and nothing else."""
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    known = json.loads(chart_schema.FILE.read_text(encoding="utf-8"))["properties"]
    assert set(values) == set(known) - {"global"}
