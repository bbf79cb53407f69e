"""The schema of the Helm chart's values, whose `config` are the processor's own settings.

Helm checks values before it installs anything, so a misspelt setting is a message, and not a pod that does not start.
`python -m support.chart_schema` in the folder `tests` writes it anew; so does `support.settings_table`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from neatlogs_processor.settings import Entry, entries

CHART = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "neatlogs-processor"
FILE = CHART / "values.schema.json"

_TEXT = {"type": "string"}
_NUMBER = {"type": "integer", "minimum": 0}
_SWITCH = {"type": "boolean"}
_ANY_OBJECT = {"type": "object"}
_ANY_LIST = {"type": "array"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _setting(entry: Entry) -> dict[str, Any]:
    """What one setting may be; `null` leaves it at its own default."""
    kinds = ["string", "null"]
    if entry.is_switch:
        kinds = ["boolean", "null"]
    elif isinstance(entry.default, tuple):
        kinds.append("array")
    elif isinstance(entry.default, int | float):
        kinds.append("number")
    return {"type": kinds}


def _is_file(name: str) -> bool:
    return name.endswith("_file")


def schema() -> dict[str, Any]:
    """Return the schema."""
    # What is secret comes from a file: values are kept in the cluster where many can read them.
    config = {entry.name: _setting(entry) for entry in entries() if not entry.meta.secret}
    files = {
        name: _object(secret=_TEXT, key=_TEXT) | {"required": ["secret", "key"]} for name in config if _is_file(name)
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **_object(
            mode={"enum": ["deployment", "daemonset", "statefulset"]},
            image=_object(repository=_TEXT, tag=_TEXT, pullPolicy={"enum": ["Always", "IfNotPresent", "Never"]}),
            imagePullSecrets=_ANY_LIST,
            nameOverride=_TEXT,
            fullnameOverride=_TEXT,
            config=_object(**config),
            secretFiles=_object(**files),
            replicas=_NUMBER,
            autoscaling=_object(
                enabled=_SWITCH,
                minReplicas=_NUMBER,
                maxReplicas=_NUMBER,
                targetCPUUtilizationPercentage=_NUMBER,
                metrics=_ANY_LIST,
            ),
            podDisruptionBudget=_object(enabled=_SWITCH, maxUnavailable={"type": ["integer", "string"]}),
            networkPolicy=_object(
                enabled=_SWITCH,
                clients=_ANY_LIST,
                scrapers=_ANY_LIST,
                upstream=_object(to=_ANY_LIST, ports=_ANY_LIST),
            ),
            service=_object(type={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}, annotations=_ANY_OBJECT),
            persistence=_object(mountPath=_TEXT, size=_TEXT, storageClassName=_TEXT),
            resources=_ANY_OBJECT,
            podMonitor=_object(enabled=_SWITCH, interval=_TEXT, labels=_ANY_OBJECT),
            podAnnotations=_ANY_OBJECT,
            podLabels=_ANY_OBJECT,
            priorityClassName=_TEXT,
            nodeSelector=_ANY_OBJECT,
            tolerations=_ANY_LIST,
            affinity=_ANY_OBJECT,
            **{"global": _ANY_OBJECT},
        ),
    }


def current() -> Any:
    """Return the schema that stands in the chart."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def write() -> None:
    """Replace it."""
    FILE.write_text(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
