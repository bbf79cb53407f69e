"""The conformance vectors, run by `EndUserSpanExporter`: all that SDK spans can say."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, TraceFlags

import neatlogs_otel as neatlogs
from support.vectors import Vector, load_vectors


def python_value(value: AnyValue) -> Any:
    """An attribute's value as the SDK holds it."""
    kind = value.WhichOneof("value")
    if kind == "kvlist_value":
        return {member.key: python_value(member.value) for member in value.kvlist_value.values}
    if kind == "array_value":
        return [python_value(item) for item in value.array_value.values]
    return None if kind is None else getattr(value, kind)


def attributes_of(holder: Any) -> dict[str, Any]:
    """The attributes of a message as the SDK holds them: each key once."""
    return {attribute.key: python_value(attribute.value) for attribute in holder.attributes}


def read(vector: Vector) -> ExportTraceServiceRequest | None:
    """The vector's request, or None where SDK spans cannot say what it says."""
    try:
        request = ExportTraceServiceRequest.FromString(vector.request)
    except DecodeError:
        return None
    for holder in holders(request):
        found: list[KeyValue] = list(holder.attributes)
        if len({attribute.key for attribute in found}) < len(found):
            return None
    return request


def holders(request: ExportTraceServiceRequest) -> list[Any]:
    """Everything in a request that has attributes."""
    found: list[Any] = []
    for resource_spans in request.resource_spans:
        found.append(resource_spans.resource)
        for scope_spans in resource_spans.scope_spans:
            found.append(scope_spans.scope)
            for span in scope_spans.spans:
                found += [span, *span.events, *span.links]
    return found


def sdk_spans(request: ExportTraceServiceRequest) -> list[ReadableSpan]:
    """The request's spans as the SDK holds them."""
    return [
        sdk_span(span, attributes_of(resource_spans.resource), scope_spans.scope)
        for resource_spans in request.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]


def sdk_span(span: Span, resource: dict[str, Any], scope: Any) -> ReadableSpan:
    """One span as the SDK holds it."""
    trace_id = int.from_bytes(span.trace_id, "big")
    parent_id = int.from_bytes(span.parent_span_id, "big")
    sampled = TraceFlags(TraceFlags.SAMPLED)
    remote = span.flags & 0x300 == 0x300
    linked = [
        (SpanContext(int.from_bytes(link.trace_id, "big"), int.from_bytes(link.span_id, "big"), is_remote=False), link)
        for link in span.links
    ]
    return ReadableSpan(
        span.name,
        context=SpanContext(trace_id, int.from_bytes(span.span_id, "big"), is_remote=False, trace_flags=sampled),
        parent=SpanContext(trace_id, parent_id, is_remote=remote, trace_flags=sampled) if parent_id else None,
        attributes=attributes_of(span),
        events=[Event(event.name, attributes_of(event), 1) for event in span.events],
        links=[Link(context, attributes_of(link)) for context, link in linked],
        resource=Resource(resource),
        instrumentation_scope=InstrumentationScope(scope.name, "1", None, attributes_of(scope)),
        start_time=1,
        end_time=2,
    )


def said(spans: list[ReadableSpan]) -> list[tuple[Any, ...]]:
    """All attributes of all spans."""
    return [
        (
            span.name,
            dict(span.attributes or {}),
            [dict(event.attributes or {}) for event in span.events],
            [dict(link.attributes or {}) for link in span.links],
            dict(span.resource.attributes),
            dict((span.instrumentation_scope and span.instrumentation_scope.attributes) or {}),
        )
        for span in spans
    ]


SAYABLE = [vector for vector in load_vectors() if vector.expected is not None and read(vector) is not None]


@pytest.mark.parametrize("vector", SAYABLE, ids=lambda vector: vector.name)
def test_vector(vector: Vector) -> None:
    """What the exporter hands on says what the vector has to become."""
    request = read(vector)
    assert request is not None
    assert vector.expected is not None
    roots: Literal["trace", "entry"] = "entry" if vector.roots == "entry" else "trace"
    inner = InMemorySpanExporter()
    exporter = neatlogs.EndUserSpanExporter(inner, roots=roots, entry_services=sorted(vector.entry_services))
    exporter.export(sdk_spans(request))
    expected = ExportTraceServiceRequest.FromString(vector.expected)
    assert said(list(inner.get_finished_spans())) == said(sdk_spans(expected))


def test_most_vectors_can_be_said() -> None:
    """Only encodings that no SDK writes are left out."""
    assert len(SAYABLE) >= 30
