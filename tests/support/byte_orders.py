"""Trace requests as the exporters of other languages write them: the same meaning, other bytes.

What is modelled is what differs from the order and the brevity of protobuf's own writers:

- the Collector writes fields in the order of the `.proto` file (`flags` before `name`), and ids and status even where
  they are empty;
- .NET does so too, and keeps four bytes for every length that it fills in later;
- JavaScript writes counts and codes that are zero.
"""

from __future__ import annotations

import struct
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

BYTE_ORDERS: Final = ("Collector", ".NET", "JavaScript")


def in_byte_order(body: bytes, order: str) -> bytes:
    """Write a request again, in one of `BYTE_ORDERS`. Spans with events or links are none of those written here."""
    padded = order == ".NET"
    out = []
    for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
        inner = _field(1, resource_spans.resource.SerializeToString())
        for scope_spans in resource_spans.scope_spans:
            scope = _field(1, scope_spans.scope.SerializeToString())
            spans = (_field(2, _span(span, order), padded) for span in scope_spans.spans)
            inner += _field(2, scope + b"".join(spans), padded)
        out.append(_field(1, inner, padded))
    return b"".join(out)


def _span(span: Span, order: str) -> bytes:
    padded = order == ".NET"
    ids = _field(1, span.trace_id) + _field(2, span.span_id)
    parent = _field(4, span.parent_span_id) if span.parent_span_id or order == "Collector" else b""
    flags = b"\x85\x01" + struct.pack("<I", span.flags)
    name = _field(5, span.name.encode())
    kind = b"\x30" + _varint(span.kind)
    times = (
        b"\x39" + struct.pack("<Q", span.start_time_unix_nano) + b"\x41" + struct.pack("<Q", span.end_time_unix_nano)
    )
    attributes = b"".join(_field(9, _attribute(attribute, padded), padded) for attribute in span.attributes)
    if order == "JavaScript":
        no_counts = b"\x50\x00\x60\x00\x70\x00"
        status = _field(15, b"\x18" + _varint(span.status.code))
        return ids + parent + name + kind + times + attributes + no_counts + status + flags
    return ids + parent + flags + name + kind + times + attributes + _field(15, span.status.SerializeToString(), padded)


def _attribute(attribute: KeyValue, padded: bool) -> bytes:
    return _field(1, attribute.key.encode()) + _field(2, attribute.value.SerializeToString(), padded)


def _field(number: int, payload: bytes, padded: bool = False) -> bytes:
    length = _varint(len(payload))
    if padded:
        length = bytes(len(payload) >> shift & 0x7F | 0x80 for shift in (0, 7, 14)) + bytes((len(payload) >> 21,))
    return _varint(number << 3 | 2) + length + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
