"""Trace requests as the exporters of other languages write them: the same meaning, other bytes.

What is modelled is what differs from the order and the brevity of protobuf's own writers:

- the Collector writes every message from its last field to its first (values before keys, resources behind spans), and
  ids and status even where they are empty; a test asks a real one;
- Collectors used to write in the order of the `.proto` file, where `flags` stands before `name`;
- .NET does so too, and keeps four bytes for every length that it fills in later;
- JavaScript writes counts and codes that are zero.
"""

from __future__ import annotations

import struct
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

BYTE_ORDERS: Final = ("Collector", "older Collector", ".NET", "JavaScript")


def in_byte_order(body: bytes, order: str) -> bytes:
    """Write a request again, in one of `BYTE_ORDERS`. Spans with events or links are none of those written here."""
    padded = order == ".NET"
    out = []
    for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = [_field(1, _attribute(one, order)) for one in resource_spans.resource.attributes]
        parts = [_field(1, b"".join(resource))]
        for scope_spans in resource_spans.scope_spans:
            scope = [_field(1, scope_spans.scope.name.encode()), _field(2, scope_spans.scope.version.encode())]
            spans = [_field(2, _span(span, order), padded) for span in scope_spans.spans]
            # Repeated fields keep the order of their elements even where everything is written backwards.
            scopes = [_field(1, _join(scope, order))]
            parts.append(_field(2, b"".join(spans + scopes if order == "Collector" else scopes + spans), padded))
        out.append(_field(1, _join(parts, order), padded))
    return b"".join(out)


def _span(span: Span, order: str) -> bytes:
    padded = order == ".NET"
    always = order.endswith("Collector")
    parent = _field(4, span.parent_span_id) if span.parent_span_id or always else b""
    status = _field(15, span.status.SerializeToString(), padded)
    flags = b"\x85\x01" + struct.pack("<I", span.flags)
    parts = [
        _field(1, span.trace_id),
        _field(2, span.span_id),
        parent,
        b"" if order == "JavaScript" else flags,
        _field(5, span.name.encode()),
        b"\x30" + _varint(span.kind),
        b"\x39" + struct.pack("<Q", span.start_time_unix_nano),
        b"\x41" + struct.pack("<Q", span.end_time_unix_nano),
        b"".join(_field(9, _attribute(attribute, order), padded) for attribute in span.attributes),
        b"\x50\x00\x60\x00\x70\x00" if order == "JavaScript" else b"",
        _field(15, b"\x18" + _varint(span.status.code)) + flags if order == "JavaScript" else status,
    ]
    return _join(parts, order)


def _attribute(attribute: KeyValue, order: str) -> bytes:
    key = _field(1, attribute.key.encode())
    return _join([key, _field(2, attribute.value.SerializeToString(), order == ".NET")], order)


def _join(parts: list[bytes], order: str) -> bytes:
    return b"".join(reversed(parts) if order == "Collector" else parts)


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
