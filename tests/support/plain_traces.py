"""Plain traces as tests write them: a document, and what it becomes before and after the rule."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.plain_trace import PlainTrace, plain_trace_to_otlp
from neatlogs_processor.core.policy import Counts, EndUserPolicy
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.errors import MalformedOtlpError
from support.otlp_sink import attributes

ID, METADATA, SESSION = "neatlogs.end_user.id", "neatlogs.end_user.metadata", "neatlogs.session.id"
NOON = 1_795_000_000_000_000_000
"""When every trace of these tests arrives."""
MS = 1_000_000


def convert(document: Any, **limits: int) -> PlainTrace:
    """A document as OTLP, before the rule."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return plain_trace_to_otlp(text, received=NOON, **{"max_size": 2**26, **limits})


def request(document: Any) -> ExportTraceServiceRequest:
    """The request that a document becomes, before the rule."""
    return ExportTraceServiceRequest.FromString(convert(document).body)


def spans(document: Any) -> list[Span]:
    """The spans that a document becomes, before the rule, in its order."""
    return list(request(document).resource_spans[0].scope_spans[0].spans)


def root(**fields: Any) -> dict[str, object]:
    """The attributes of a root span with these fields, without its kind."""
    found = attributes(spans({"name": "chat", **fields})[0])
    return {key: value for key, value in found.items() if not key.endswith("span.kind")}


def enforced(document: Any) -> tuple[list[Span], Counts]:
    """The spans after the rule, and what it found."""
    after = enforce_traces(convert(document).body, EndUserPolicy())
    request = ExportTraceServiceRequest.FromString(after.body)
    return list(request.resource_spans[0].scope_spans[0].spans), after.counts


def refused(document: Any, **limits: int) -> str:
    """Why a document is refused."""
    with pytest.raises(MalformedOtlpError) as caught:
        convert(document, **limits)
    return str(caught.value)
