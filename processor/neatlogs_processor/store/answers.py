"""What a store answers to a request that it keeps."""

from __future__ import annotations

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse


def response(without_id: int) -> bytes:
    """Return an `ExportTraceServiceResponse`.

    Args:
        without_id: How many spans cannot be kept because their trace id or span id is missing.
    """
    if not without_id:
        # An empty message is a complete success.
        return b""
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = without_id
    answer.partial_success.error_message = f"{without_id} spans have no trace id or no span id"
    return answer.SerializeToString()
