"""Reading the request that a store is to keep."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from neatlogs_processor.errors import MalformedOtlpError


def read_message(body: bytes) -> ExportTraceServiceRequest:
    """Return a serialised `ExportTraceServiceRequest` as the official reader sees it.

    Raises:
        MalformedOtlpError: Protobuf cannot read it.
    """
    message = ExportTraceServiceRequest()
    try:
        message.ParseFromString(body)
    except DecodeError:
        raise MalformedOtlpError(
            "the store cannot keep the request: it is not OTLP (text that is not UTF-8?)"
        ) from None
    return message
