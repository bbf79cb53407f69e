"""What exporters of other languages write is edited where it stands: nothing of it needs the strict way."""

from __future__ import annotations

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bench.payloads import IDENTITIES, KINDS, Identity, Kind, request
from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.traces import enforce_traces
from support.byte_orders import BYTE_ORDERS, in_byte_order
from support.oracle import oracle_enforce
from support.wire_forms import read_fields

STRICT = EndUserPolicy()


def spans_of(body: bytes) -> list[bytes]:
    """The bytes of each span, without the lengths around it."""
    return [
        span
        for _, _, resource_spans in read_fields(body)
        for number, _, scope_spans in read_fields(resource_spans)
        if number == 2
        for inner, _, span in read_fields(scope_spans)
        if inner == 2
    ]


@pytest.mark.parametrize("identity", IDENTITIES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", BYTE_ORDERS)
def test_every_byte_order_is_kept(order: str, kind: Kind, identity: Identity) -> None:
    """Of each span what stays is byte for byte what its exporter wrote; the strict way would write it anew."""
    written = request(kind, 48, identity)
    expected = in_byte_order(oracle_enforce(written)[0], order)
    enforced = enforce_traces(in_byte_order(written, order), STRICT)
    assert spans_of(enforced.body) == spans_of(expected)
    assert ExportTraceServiceRequest.FromString(enforced.body) == ExportTraceServiceRequest.FromString(expected)


@pytest.mark.parametrize("order", BYTE_ORDERS)
def test_every_byte_order_is_forwarded_as_it_came(order: str) -> None:
    """Where only roots have identity, the request leaves as the very same object."""
    body = in_byte_order(request("service", 48, "roots"), order)
    assert enforce_traces(body, STRICT).body is body
