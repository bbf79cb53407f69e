"""`neatlogs-processor ottl`: what it prints, and what a real Collector makes of the conformance vectors with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from neatlogs_processor.ottl import CANNOT, configuration
from support.collector_process import COLLECTOR, collector_process, export
from support.otlp_sink import OtlpSink
from support.vectors import Vector, load_vectors

LINKS, _, ENTRY_SPANS, _, TWICE, NAN, MALFORMED = CANNOT

# The vectors that a Collector makes something else of, and the sentence of the printed list that says so.
DIFFERS = {
    "link-override": LINKS,
    "entry-span-owns-identity": ENTRY_SPANS,
    "blank-id-yields": TWICE,
    "duplicates-on-root": TWICE,
    "map-metadata": NAN,
    "all-zero-parent-of-odd-length": MALFORMED,
    "child-with-parent-of-odd-length": MALFORMED,
    "group-beside-identity": MALFORMED,
    "value-of-two-types": MALFORMED,
}


def test_it_prints_a_transform_processor_and_what_it_cannot_do() -> None:
    """The command's output is YAML with one transform processor that fails closed; comments list each limit."""
    command = [sys.executable, "-m", "neatlogs_processor", "ottl"]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    (processor,) = yaml.safe_load(printed)["processors"].values()
    assert processor["error_mode"] == "propagate"
    contexts = [group["context"] for group in processor["trace_statements"]]
    assert contexts == ["span", "span", "span", "spanevent", "scope", "resource"]
    for sentence in CANNOT:
        assert f"# - {sentence}\n" in printed


@pytest.mark.parametrize("words", [("ottl", "--grpc-listen", "127.0.0.1:0"), ("ottl", "traces")])
def test_it_takes_no_flags(words: tuple[str, ...]) -> None:
    """Nothing of the processor's settings changes what is printed, so they are refused."""
    command = [sys.executable, "-m", "neatlogs_processor", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "ottl takes no flags" in done.stderr


def pipeline(upstream: str) -> dict[str, Any]:
    """A Collector's configuration with what the command prints, and nothing else between receiver and exporter."""
    exporter = {"endpoint": upstream, "tls": {"insecure": True}, "sending_queue": {"enabled": False}}
    transform = yaml.safe_load(configuration())
    return {
        **transform,
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": ""}}}},
        "exporters": {"otlp_grpc": exporter},
        "service": {
            "pipelines": {
                "traces": {"receivers": ["otlp"], "processors": [*transform["processors"]], "exporters": ["otlp_grpc"]}
            }
        },
    }


def without_order(request: ExportTraceServiceRequest) -> ExportTraceServiceRequest:
    """A request without what a Collector writes in its own way: the order of attributes, and explicit defaults."""
    request.DiscardUnknownFields()
    for resource_spans in request.resource_spans:
        holders: list[Any] = [resource_spans.resource]
        for scope_spans in resource_spans.scope_spans:
            holders.append(scope_spans.scope)
            for span in scope_spans.spans:
                holders += [span, *span.events, *span.links]
                if not span.status.ListFields():
                    span.ClearField("status")
                if not any(span.parent_span_id):
                    span.ClearField("parent_span_id")
        for holder in holders:
            ordered = sorted(holder.attributes, key=lambda pair: (pair.key, pair.SerializeToString()))
            del holder.attributes[:]
            holder.attributes.extend(ordered)
    return request


def outcome(address: str, sink: OtlpSink, vector: Vector) -> bool:
    """Whether a Collector does with a vector's request what the rule does."""
    before = len(sink.requests)
    try:
        export(address, vector.request)
    except grpc.RpcError as error:
        # A Collector that is not there, or cannot transform a batch, answers otherwise.
        return vector.expected is None and error.code() is grpc.StatusCode.INTERNAL
    if vector.expected is None:
        return False
    arrived = [one.body for one in sink.requests[before:]] or [ExportTraceServiceRequest()]
    wanted = ExportTraceServiceRequest.FromString(vector.expected)
    return without_order(arrived[0]) == without_order(wanted)


@pytest.mark.needs_go
@pytest.mark.skipif(not COLLECTOR.exists(), reason="there is no Collector here: make bench-collector (needs Go)")
def test_a_collector_runs_the_vectors(tmp_path: Path) -> None:
    """A Collector with this configuration does as the rule says, except where the printed list says that it cannot."""
    with OtlpSink() as sink:
        config = pipeline(sink.grpc_endpoint.removeprefix("http://"))
        with collector_process(config, tmp_path) as (address, _):
            differing = {one.name for one in load_vectors() if not outcome(address, sink, one)}
    assert sorted(differing) == sorted(DIFFERS)
    assert set(DIFFERS.values()) <= set(CANNOT)
