"""OTLP's JSON mapping of a trace request, for reading.

It is protobuf's own mapping but for ids, which are hex (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding).
"""

from __future__ import annotations

import base64
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_IDS = ("traceId", "spanId", "parentSpanId")


def to_otlp_json(request: ExportTraceServiceRequest) -> dict[str, Any]:
    """The request as JSON-ready objects; enums as integers."""
    document: dict[str, Any] = MessageToDict(request, use_integers_for_enums=True)
    _to_hex(document)
    return document


def _to_hex(node: Any) -> None:
    if isinstance(node, list):
        for item in node:
            _to_hex(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in _IDS:
                node[key] = base64.b64decode(value).hex()
            else:
                _to_hex(value)
