"""Trace requests with any value in any field that OTLP defines, as a hypothesis strategy."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

MOST_LEVELS: Final = 14
"""How many messages stand inside each other at most: attributes may hold lists of maps of lists."""

_SCALARS: Final[dict[int, st.SearchStrategy[Any]]] = {
    FieldDescriptor.TYPE_STRING: st.text(max_size=5)
    | st.sampled_from(["", "\u2028", "\0\x1f", "traceId", "😀", "NaN"]),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=5),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: st.floats() | st.sampled_from([0.0, -0.0, 5e-324, 1e308, float("nan"), float("-inf")]),
    FieldDescriptor.TYPE_ENUM: st.integers(-(2**31), 2**31 - 1) | st.integers(0, 5),
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1) | st.sampled_from([2**53 + 1, -(2**63)]),
    FieldDescriptor.TYPE_FIXED64: st.integers(0, 2**64 - 1) | st.just(2**64 - 1),
}


@st.composite
def trace_requests(draw: st.DrawFn) -> ExportTraceServiceRequest:
    """Draw a request of a few spans."""
    message = ExportTraceServiceRequest()
    _fill(draw, message, MOST_LEVELS)
    return message


def _fill(draw: st.DrawFn, message: Any, levels: int) -> None:
    descriptor: Descriptor = message.DESCRIPTOR
    fields = [one for one in descriptor.fields if levels > 1 or one.message_type is None]
    for field in fields:
        # There are always spans; deep down, little: what is above has most of the interesting fields.
        is_way_to_spans = levels > MOST_LEVELS - 3 and field.is_repeated
        if not is_way_to_spans and (not draw(st.booleans()) or (levels < MOST_LEVELS - 6 and draw(st.booleans()))):
            continue
        if field.message_type is None:
            value = draw(_SCALARS[field.type])
            if field.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
        elif field.is_repeated:
            for _ in range(draw(st.integers(1, 2))):
                _fill(draw, getattr(message, field.name).add(), levels - 1)
        else:
            inner = getattr(message, field.name)
            inner.SetInParent()
            _fill(draw, inner, levels - 1)
