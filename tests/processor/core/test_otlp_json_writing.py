"""OTLP/JSON as it is written, held against the processor's own reader and against the official mapping."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from neatlogs_processor.core.otlp_json import MAX_DEPTH, request_from_json
from neatlogs_processor.core.otlp_json_writing import traces_to_json
from neatlogs_processor.core.request import Signal
from neatlogs_processor.errors import MalformedOtlpError
from support.otlp_messages import trace_requests


def read(text: bytes) -> ExportTraceServiceRequest:
    """Return what the processor reads."""
    return ExportTraceServiceRequest.FromString(request_from_json(Signal.TRACES, text))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(trace_requests())
def test_what_is_written_is_read_as_the_same_request(request_: ExportTraceServiceRequest) -> None:
    """NaN, bytes, 64-bit integers, maps in lists, empty and unknown enum values: nothing changes on the way."""
    written = traces_to_json(request_).text
    again = read(written)
    # NaN is not equal to itself, and serialised it is.
    assert again.SerializeToString(deterministic=True) == request_.SerializeToString(deterministic=True)
    assert b"\n" not in written


def test_ids_are_hexadecimal_and_numbers_of_64_bits_are_text() -> None:
    """It is OTLP's mapping and not protobuf's own: ids are not base64, and enums are integers."""
    message = ExportTraceServiceRequest()
    span = (
        message.resource_spans.add()
        .scope_spans.add()
        .spans.add(
            trace_id=bytes(range(16)),
            span_id=b"\xff" * 8,
            parent_span_id=b"\x01" * 8,
            start_time_unix_nano=2**64 - 1,
            kind=3,
        )
    )
    span.links.add(trace_id=b"\xab" * 16, span_id=b"\xcd" * 8)
    span.attributes.add(key="traceId", value=AnyValue(bytes_value=b"\xff"))
    (written,) = json.loads(traces_to_json(message).text)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert written == {
        "traceId": "000102030405060708090a0b0c0d0e0f",
        "spanId": "ff" * 8,
        "parentSpanId": "01" * 8,
        "kind": 3,
        "startTimeUnixNano": "18446744073709551615",
        "attributes": [{"key": "traceId", "value": {"bytesValue": "/w=="}}],
        "links": [{"traceId": "ab" * 16, "spanId": "cd" * 8}],
    }


@pytest.mark.parametrize("levels", [10, 30, 39, 40, 41, 44])
def test_the_depth_says_whether_it_can_be_read(levels: int) -> None:
    """Protobuf may nest deeper than JSON that the processor reads; the writer says how deep it came."""
    message = ExportTraceServiceRequest()
    span = message.resource_spans.add().scope_spans.add().spans.add(trace_id=b"\1" * 16, span_id=b"\1" * 8)
    value = span.attributes.add(key="deep").value
    for _ in range(levels):
        value = value.array_value.values.add()
    value.int_value = 1
    written = traces_to_json(message)
    if written.depth <= MAX_DEPTH:
        assert read(written.text) == message
    else:
        with pytest.raises(MalformedOtlpError, match="levels deep"):
            read(written.text)


def test_nothing_is_an_empty_object() -> None:
    """A request without spans is written as one."""
    assert traces_to_json(ExportTraceServiceRequest()) == (b"{}", 1)
