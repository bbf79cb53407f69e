"""A real OpenTelemetry Collector in front of the processor, behind it, and in its place.

It is run where `make bench-collector` has built it; elsewhere these tests are skipped.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench.payloads import request
from support.byte_orders import in_byte_order
from support.collector_process import COLLECTOR, collector_process, export
from support.oracle import oracle_enforce
from support.processor_process import WAIT_SECONDS, processor_process
from support.upstream import Upstream

pytestmark = [
    pytest.mark.needs_go,
    pytest.mark.skipif(not COLLECTOR.exists(), reason="the Collector was not built (make bench-collector)"),
]

REPOSITORY = Path(__file__).resolve().parents[2]
SENT = request("service", 16, "every")
ID = b"neatlogs.end_user.id"


def configuration(name: str) -> dict[str, Any]:
    """One of the examples' configurations."""
    path = REPOSITORY / "examples" / "configurations" / name
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def plain(exporter: str, endpoint: str, processors: dict[str, Any] | None = None) -> dict[str, Any]:
    """A Collector that forwards each request over gRPC as it comes, through these processors."""
    processors = processors or {}
    return {
        "receivers": {"otlp": {"protocols": {"grpc": {}}}},
        "processors": processors,
        "exporters": {exporter: {"endpoint": endpoint, "compression": "none", "tls": {"insecure": True}}},
        "service": {
            "pipelines": {"traces": {"receivers": ["otlp"], "processors": list(processors), "exporters": [exporter]}}
        },
    }


async def received_through(config: dict[str, Any], upstream: Upstream, directory: Path, body: bytes) -> bytes:
    """What arrives upstream when a request is sent to a Collector."""
    with collector_process(config, directory) as (address, _):
        await asyncio.to_thread(export, address, body)
        async with upstream.arrived:
            await asyncio.wait_for(upstream.arrived.wait_for(lambda: bool(upstream.received)), WAIT_SECONDS)
    return upstream.received[0].body


async def test_a_collector_in_front(tmp_path: Path) -> None:
    """Through the example configuration, spans reach the processor, and leave it as the rule demands."""
    config = configuration("collector-in-front.yaml")
    async with Upstream() as upstream:
        with processor_process("--upstream-endpoint", f"127.0.0.1:{upstream.port}") as processor:
            config["exporters"]["otlp_grpc"]["endpoint"] = processor.address
            body = await received_through(config, upstream, tmp_path, SENT)
    expected, _ = oracle_enforce(SENT)
    assert ExportTraceServiceRequest.FromString(body) == ExportTraceServiceRequest.FromString(expected)


def test_a_collector_behind(tmp_path: Path) -> None:
    """Through the example configuration, what the Collector gets to see is the roots' identity, and no other."""
    expected, _ = oracle_enforce(SENT)
    end = time.monotonic() + WAIT_SECONDS
    with collector_process(configuration("collector-behind.yaml"), tmp_path) as (address, log):
        with processor_process("--upstream-endpoint", address, "--upstream-compression", "none") as processor:
            while time.monotonic() < end:
                try:
                    processor.export(SENT)
                except Exception:  # noqa: PERF203  # the Collector is still starting
                    time.sleep(0.1)
                else:
                    break
        while "Span #15" not in log.read_text() and time.monotonic() < end:
            time.sleep(0.05)
    written = log.read_text()
    assert written.count("neatlogs.end_user.id: Str(") % expected.count(ID) == 0
    assert SENT.count(ID) == 16
    assert written.count("neatlogs.end_user.id: Str(") * 8 == written.count("Span #")


async def test_sampling_that_keeps_every_root(tmp_path: Path) -> None:
    """Through the example configuration go all roots, and the children of three traces in 256."""
    sent = ExportTraceServiceRequest()
    spans = sent.resource_spans.add().scope_spans.add().spans
    for trace in range(256):
        trace_id = bytes(15) + bytes([trace])
        spans.add(trace_id=b"\1" + trace_id[1:], span_id=b"r" * 8, name="root")
        spans.add(trace_id=b"\1" + trace_id[1:], span_id=b"c" * 8, parent_span_id=b"r" * 8, name=f"child {trace}")
    config = configuration("collector-sampling.yaml")
    async with Upstream() as upstream:
        config["exporters"] = plain("otlp_grpc", f"127.0.0.1:{upstream.port}")["exporters"]
        config["service"]["pipelines"]["traces"]["exporters"] = ["otlp_grpc"]
        body = await received_through(config, upstream, tmp_path, sent.SerializeToString())
    groups = ExportTraceServiceRequest.FromString(body).resource_spans
    names = Counter(span.name for group in groups for scope in group.scope_spans for span in scope.spans)
    assert names == {"root": 256, "child 0": 1, "child 1": 1, "child 2": 1}


async def test_the_transform_of_the_readme(tmp_path: Path) -> None:
    """The statements that the README shows keep identity away from all but root spans."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (snippet,) = (block for block in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL) if "transform/" in block)
    async with Upstream() as upstream:
        config = plain("otlp_grpc", f"127.0.0.1:{upstream.port}", yaml.safe_load(snippet)["processors"])
        body = await received_through(config, upstream, tmp_path, SENT)
    expected, _ = oracle_enforce(SENT)
    assert ExportTraceServiceRequest.FromString(body) == ExportTraceServiceRequest.FromString(expected)


async def test_the_order_in_which_the_collector_writes(tmp_path: Path) -> None:
    """What a Collector writes is, byte for byte, what `in_byte_order` takes for it."""
    async with Upstream() as upstream:
        body = await received_through(plain("otlp_grpc", f"127.0.0.1:{upstream.port}"), upstream, tmp_path, SENT)
    assert body == in_byte_order(SENT, "Collector")
