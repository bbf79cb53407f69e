"""What an OTLP/HTTP client is answered, written in JSON as protobuf maps it (https://protobuf.dev/programming-guides/json/)."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2  # noqa: F401  # the details that can be written in JSON are those known here
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from neatlogs_processor.core.request import Signal

_RESPONSES: dict[Signal, type[Message]] = {
    Signal.TRACES: ExportTraceServiceResponse,
    Signal.METRICS: ExportMetricsServiceResponse,
    Signal.LOGS: ExportLogsServiceResponse,
}


def response_to_json(signal: Signal, body: bytes) -> bytes:
    """Return an `Export…ServiceResponse` as JSON; what is not one, or holds nothing known, is `{}`."""
    try:
        response = _RESPONSES[signal].FromString(body)
    except DecodeError:
        # The destination accepted the request, and that is what the client has to hear.
        return b"{}"
    return _dumps(MessageToDict(response))


def status_to_json(details: bytes) -> bytes:
    """Return a `google.rpc.Status` as JSON, without the details whose type nobody here knows."""
    status = Status()
    try:
        status.ParseFromString(details)
    except DecodeError:
        return b"{}"
    document: dict[str, Any] = MessageToDict(Status(code=status.code, message=status.message))
    readable = [written for written in map(_readable, status.details) if written is not None]
    if readable:
        document["details"] = readable
    return _dumps(document)


def plain_trace_answer(trace_id: str, spans: int, response: bytes) -> bytes:
    """Return what the sender of a plain trace is answered once the destination has taken it.

    Args:
        trace_id: The trace's id.
        spans: How many spans were sent.
        response: The destination's serialised `ExportTraceServiceResponse`. Spans that it rejected do not count, and
            then the answer is not `ok`; a message of it travels on.
    """
    try:
        partial = ExportTraceServiceResponse.FromString(response).partial_success
    except DecodeError:
        partial = ExportTraceServiceResponse().partial_success
    rejected = min(max(partial.rejected_spans, 0), spans)
    document: dict[str, Any] = {"ok": not rejected, "trace_id": trace_id, "spans": spans - rejected}
    if partial.error_message:
        document["error" if rejected else "warning"] = partial.error_message
    return _dumps(document)


def plain_trace_refusal(message: str) -> bytes:
    """Return what the sender of a plain trace is answered where nothing of it was taken, and why."""
    return _dumps({"ok": False, "error": message})


def _readable(detail: Message) -> dict[str, Any] | None:
    try:
        written: dict[str, Any] = MessageToDict(detail)
    except (TypeError, ValueError, DecodeError):
        # Of a type that is not known here, or not of the type that it claims.
        return None
    return written


def _dumps(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
