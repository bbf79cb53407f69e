"""Trace requests become OTLP/JSON (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding).

The counterpart of `otlp_json`: what is written here is read there as the same request. What the encoding has no place
for, fields that this version of OTLP does not define, is left out.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Written(NamedTuple):
    """A request as text.

    Attributes:
        text: UTF-8, on one line.
        depth: How many objects and arrays stand inside each other; `otlp_json.MAX_DEPTH` are read.
    """

    text: bytes
    depth: int


def traces_to_json(request: ExportTraceServiceRequest) -> Written:
    """Return the request in JSON: enums as integers, ids in hexadecimal digits, 64-bit integers as text."""
    document: dict[str, Any] = MessageToDict(request, use_integers_for_enums=True)
    for span in _spans(document):
        for one in (span, *span.get("links", ())):
            for name in ("traceId", "spanId", "parentSpanId"):
                if name in one:
                    one[name] = base64.b64decode(one[name]).hex()
    return Written(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(), _depth(document))


def _spans(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource_spans in document.get("resourceSpans", ()):
        for scope_spans in resource_spans.get("scopeSpans", ()):
            yield from scope_spans.get("spans", ())


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
