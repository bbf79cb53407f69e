"""Jaeger as one program with traces in memory, on free ports of loopback, where `build_jaeger.sh` has built it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from backends import START_SECONDS, NotStartedError, free_ports

from support.peer_environments import PEERS

JAEGER = PEERS / "jaeger" / "jaeger"


@dataclass(frozen=True)
class Jaeger:
    """A running Jaeger.

    Attributes:
        client: Asks its HTTP API.
        otlp: Where it takes OTLP/gRPC: host:port.
    """

    client: httpx.Client
    otlp: str

    def traces(self, tags: Mapping[str, str]) -> list[dict[str, Any]]:
        """Return the traces of which a span has these tags."""
        found: list[dict[str, Any]] = []
        services = self.client.get("/api/services").raise_for_status().json()["data"] or []
        for service in services:
            question = {"service": service, "tags": json.dumps(dict(tags)), "limit": "100", "lookback": "1h"}
            found += self.client.get("/api/traces", params=question).raise_for_status().json()["data"]
        return found


@contextmanager
def running_jaeger(directory: Path) -> Iterator[Jaeger]:
    """Run Jaeger until the block ends.

    Raises:
        NotStartedError: It did not.
    """
    otlp, http, grpc, health = free_ports(4)
    config = {
        "service": {
            "extensions": ["jaeger_storage", "jaeger_query", "healthcheckv2"],
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
            "telemetry": {"metrics": {"level": "none"}},
        },
        "extensions": {
            "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": 1000}}}},
            "jaeger_query": {
                "storage": {"traces": "memory"},
                "http": {"endpoint": f"127.0.0.1:{http}"},
                "grpc": {"endpoint": f"127.0.0.1:{grpc}"},
            },
            "healthcheckv2": {"use_v2": True, "http": {"endpoint": f"127.0.0.1:{health}"}},
        },
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"127.0.0.1:{otlp}"}}}},
        "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
    }
    file, log = directory / "jaeger.yaml", directory / "jaeger.log"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    with log.open("w") as output, httpx.Client(base_url=f"http://127.0.0.1:{http}", trust_env=False) as client:
        process = subprocess.Popen([JAEGER, "--config", file], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(client):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise NotStartedError(f"Jaeger did not start:\n{log.read_text(encoding='utf-8')[-2000:]}")
                time.sleep(0.2)
            yield Jaeger(client, f"127.0.0.1:{otlp}")
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()
                process.wait()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/api/services").is_success
    except httpx.TransportError:
        return False
