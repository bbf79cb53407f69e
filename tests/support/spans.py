"""Small OTLP trace requests, written the way they read."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

TRACE = bytes(range(16))
ROOT = b"\x01" * 8
END_USER = "neatlogs.end_user.id"
SOURCE = "neatlogs.end_user.source"


def attributes(values: Mapping[str, str]) -> list[KeyValue]:
    """Return string attributes."""
    return [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in values.items()]


def root(name: str = "root", *, trace_id: bytes = TRACE, **values: str) -> Span:
    """Return a root span; an attribute's dots are written as double underscores."""
    return Span(trace_id=trace_id, span_id=ROOT, name=name, attributes=attributes(_dotted(values)))


def child(name: str = "child", *, trace_id: bytes = TRACE, **values: str) -> Span:
    """Return a child of `root()`."""
    return Span(
        trace_id=trace_id, span_id=b"\x02" * 8, parent_span_id=ROOT, name=name, attributes=attributes(_dotted(values))
    )


def request(*spans: Span, service: str = "shop", **resource: str) -> bytes:
    """Return a serialised request with these spans in one resource."""
    message = ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=Resource(attributes=attributes({"service.name": service, **_dotted(resource)})),
                scope_spans=[ScopeSpans(spans=spans)],
            )
        ]
    )
    return message.SerializeToString()


def names_and_end_users(body: bytes) -> dict[str, str | None]:
    """Return each span's name and the end-user id among its own attributes."""
    found: dict[str, str | None] = {}
    for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                ids = [item.value.string_value for item in span.attributes if item.key == END_USER]
                found[span.name] = ids[0] if ids else None
    return found


def _dotted(values: Mapping[str, str]) -> dict[str, str]:
    return {key.replace("__", "."): value for key, value in values.items()}
