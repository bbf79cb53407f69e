"""The OpenTelemetry Collector that `make bench-collector` builds, as a process of its own."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import yaml

from support.processor_process import WAIT_SECONDS

_PEERS = Path(__file__).resolve().parents[2] / ".peers"

COLLECTOR = _PEERS / "collector" / "otelcol"

SPREADING = _PEERS / "spreading-collector" / "otelcol"
"""The one with the load-balancing exporter, which `make spreading-collector` builds."""

_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@contextmanager
def collector_process(config: dict[str, Any], directory: Path, program: Path = COLLECTOR) -> Iterator[tuple[str, Path]]:
    """Run a Collector until the block ends.

    Args:
        config: Its configuration. The addresses of its OTLP receivers are replaced by free ones, and its own metrics,
            which would take a fixed port, are off.
        directory: Where its configuration and its log are kept.
        program: The Collector.

    Yields:
        The address of its gRPC receiver, and the file that holds what it writes.
    """
    grpc_port, http_port = _free_ports(2)
    protocols = config["receivers"]["otlp"]["protocols"]
    protocols["grpc"]["endpoint"] = f"127.0.0.1:{grpc_port}"
    if "http" in protocols:
        protocols["http"]["endpoint"] = f"127.0.0.1:{http_port}"
    config["service"]["telemetry"] = {"metrics": {"level": "none"}}
    file, log = directory / "collector.yaml", directory / "collector.log"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    with log.open("w") as output:
        process = subprocess.Popen(
            [program, "--config", file], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield f"127.0.0.1:{grpc_port}", log
        finally:
            process.terminate()
            try:
                process.wait(WAIT_SECONDS)
            finally:
                process.kill()
                process.wait()


def export(address: str, body: bytes) -> None:
    """Send the bytes of one OTLP trace request to a Collector, as soon as it listens."""
    with grpc.insecure_channel(address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_EXPORT)
        call(body, timeout=WAIT_SECONDS, wait_for_ready=True)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
