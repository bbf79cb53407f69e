"""Programs that use the TypeScript package under Node, the real processor, and the same page as the Python shim's."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.request import urlopen

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

import neatlogs_otel as neatlogs
from support.otlp_sink import OtlpSink, attributes
from support.processor_process import processor_process
from support.typescript_package import NodeMissingError, built_package, run_node_program

# The first test of a new machine installs packages.
pytestmark = pytest.mark.timeout(600)

ID, METADATA, SOURCE = "neatlogs.end_user.id", "neatlogs.end_user.metadata", "neatlogs.end_user.source"


@pytest.fixture(autouse=True)
def node() -> None:
    """Node and the built package."""
    try:
        built_package()
    except NodeMissingError as error:
        pytest.skip(str(error))


def identity(span: Span) -> dict[str, object]:
    return {key: value for key, value in attributes(span).items() if key.startswith("neatlogs.end_user")}


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_identity_arrives_on_roots_alone(protocol: str) -> None:
    """Concurrent traces, streams and late names of a Node program each reach the backend with their own end user."""
    with OtlpSink() as sink, processor_process("--upstream-endpoint", sink.grpc_endpoint) as processor:
        endpoint = processor.endpoint if protocol == "grpc" else processor.http_endpoint
        assert run_node_program("tenants.mjs", endpoint, protocol) == ""
        spans = sink.wait_for_spans(20 * 2 + 5 + 2 * 2)
    roots = [span for span in spans if not span.parent_span_id]
    children = [span for span in spans if span.parent_span_id]
    assert sorted(str(identity(root)[ID]) for root in roots) == sorted(
        [*(f"u_{at}" for at in range(20)), *(f"s_{at}" for at in range(5)), "u_late", "u_identified"]
    )
    assert [identity(child) for child in children if identity(child)] == []
    by_id = {identity(root)[ID]: root for root in roots}
    assert identity(by_id["u_7"]) == {ID: "u_7", METADATA: '{"id":"u_7","plan":"pro"}', SOURCE: "span"}
    assert identity(by_id["u_late"])[SOURCE] == "set_end_user"
    assert attributes(by_id["u_identified"])["neatlogs.session.id"] == "conversation-1"
    search = next(span for span in children if span.name == "search")
    assert attributes(search)["openinference.span.kind"] == "TOOL"
    assert attributes(search)["input.value"] in ("and now?", "who?", "here?")
