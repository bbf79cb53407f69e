"""What a span says of itself in a few fields: its trace, its parent, when it began. Many spans are read at once, in C.

The official reader decides what counts where a field stands twice or in a wrong encoding. It is shown a message type
with these fields alone: the others it only has to find the end of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from neatlogs_processor.core.policy import is_entry_span, is_root_span
from neatlogs_processor.core.schema import (
    SCOPE_SPANS_SPANS,
    SPAN_FLAGS,
    SPAN_PARENT_SPAN_ID,
    SPAN_SPAN_ID,
    SPAN_START,
    SPAN_TRACE_ID,
)
from neatlogs_processor.core.wire import encode_len

ENTRY, ROOT, CHILD = range(3)
"""Ranks: an entry span of a listed service, a root span, every other span. The smallest speaks for the trace."""

TRACE_ID_BYTES: Final = 16


class Head(NamedTuple):
    """What a span says of itself.

    Attributes:
        trace_id: 16 bytes; empty where the span names no trace, or cannot be read.
        rank: `ENTRY`, `ROOT` or `CHILD`.
        start: When it began, in nanoseconds since the epoch; 0 where it does not say.
        span_id: As on the wire, normally 8 bytes.
    """

    trace_id: bytes
    rank: int
    start: int
    span_id: bytes


_UNREADABLE: Final = Head(b"", CHILD, 0, b"")


def read_heads(spans: bytes, payloads: Sequence[bytes], *, is_entry_service: bool) -> list[Head]:
    """Read the heads of some spans.

    Args:
        spans: A piece of a `ScopeSpans` that consists of whole fields, with these spans in it and no others.
        payloads: The spans, in the same order.
        is_entry_service: Whether entry spans of their service own identity.
    """
    try:
        read = _SPANS.FromString(spans).spans
    except DecodeError:
        read = [_read_or_none(payload) for payload in payloads]
    return [_head(span, is_entry_service) for span in read]


def _head(span: Any, is_entry_service: bool) -> Head:
    if span is None:
        return _UNREADABLE
    trace_id = span.trace_id
    if len(trace_id) != TRACE_ID_BYTES or not trace_id.strip(b"\0"):
        return _UNREADABLE
    parent = span.parent_span_id
    if is_root_span(parent):
        rank = ROOT
    else:
        rank = ENTRY if is_entry_service and is_entry_span(parent, span.flags) else CHILD
    return Head(trace_id, rank, span.start, span.span_id)


def _read_or_none(payload: bytes) -> Any:
    """Read a span by itself; None where it cannot be."""
    try:
        return _SPANS.FromString(encode_len(SCOPE_SPANS_SPANS, payload)).spans[0]
    except DecodeError:
        return None


def _message_type() -> type[Message]:
    file = FileDescriptorProto(
        name="neatlogs_processor/span_heads.proto", package="neatlogs_processor", syntax="proto3"
    )
    span = file.message_type.add(name="Span")
    for name, number, kind in (
        ("trace_id", SPAN_TRACE_ID, FieldDescriptorProto.TYPE_BYTES),
        ("span_id", SPAN_SPAN_ID, FieldDescriptorProto.TYPE_BYTES),
        ("parent_span_id", SPAN_PARENT_SPAN_ID, FieldDescriptorProto.TYPE_BYTES),
        ("start", SPAN_START, FieldDescriptorProto.TYPE_FIXED64),
        ("flags", SPAN_FLAGS, FieldDescriptorProto.TYPE_FIXED32),
    ):
        span.field.add(name=name, number=number, type=kind, label=FieldDescriptorProto.LABEL_OPTIONAL)
    spans = file.message_type.add(name="Spans")
    spans.field.add(
        name="spans",
        number=SCOPE_SPANS_SPANS,
        type=FieldDescriptorProto.TYPE_MESSAGE,
        type_name=".neatlogs_processor.Span",
        label=FieldDescriptorProto.LABEL_REPEATED,
    )
    # A pool of its own: the names are nobody else's.
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("neatlogs_processor.Spans"))


_SPANS: Final[Any] = _message_type()
