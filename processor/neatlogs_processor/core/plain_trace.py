"""A plain trace becomes an OTLP request: what the published `neatlogs/browser` client sends to `POST /v1/trace`.

`core/plain_fields.py` says what becomes of each field. Identity is placed here and judged by the rule, as everybody's:
what a child says of an end user becomes attributes of the child, which `enforce_traces` removes and counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core import json_text
from neatlogs_processor.core.otlp_json import MAX_DEPTH
from neatlogs_processor.core.plain_attributes import Attributes, Budget
from neatlogs_processor.core.plain_fields import FIELDS
from neatlogs_processor.core.plain_json import FieldError, JsonReader, Value
from neatlogs_processor.core.plain_span import SpanWriter
from neatlogs_processor.core.plain_times import Times
from neatlogs_processor.errors import RequestTooLargeError

MAX_SPANS: Final = 10_000
"""Spans of one plain trace."""

SCOPE: Final = "neatlogs.plain_trace"
"""The name of the instrumentation scope that the spans get."""

_KNOWN: Final = frozenset(
    name.partition(".")[0].partition("[")[0].encode() for one in FIELDS for name in (one.name, *one.aliases)
)


@dataclass(frozen=True)
class PlainTrace:
    """A plain trace as OTLP.

    Attributes:
        body: The serialised `ExportTraceServiceRequest`, before the rule.
        trace_id: The trace's id, in hexadecimal digits.
        spans: How many spans it has.
    """

    body: bytes
    trace_id: str
    spans: int


@dataclass
class _Node:
    """A span as it was read: its fields, and its children."""

    path: str
    fields: dict[bytes, Value] = field(default_factory=dict)
    children: list[_Node] = field(default_factory=list)
    times: Times = field(default_factory=Times)


def plain_trace_to_otlp(text: bytes, *, received: int, max_depth: int = MAX_DEPTH, max_size: int) -> PlainTrace:
    """Read a plain trace.

    The ids are made from the text, so the same text is the same trace.

    Args:
        text: The JSON text, in UTF-8; a byte order mark is passed over.
        received: When it arrived, in nanoseconds since 1970: the end of a root that says nothing of its times.
        max_depth: How many objects and arrays may be open at once, at most `MAX_DEPTH`.
        max_size: About how many bytes may come out.

    Raises:
        RequestTooLargeError: It has over `MAX_SPANS` spans, or more than `max_size` bytes come out.
        MalformedOtlpError: It is not JSON, or not a plain trace. The message says where, and repeats no value.
    """
    json_text.check_encoding(text)
    reader = JsonReader(text, max_depth)
    root = _Tree(reader).read()
    return _Writing(reader, sha256(text).digest(), max_size).write(root, received)


class _Tree:
    """Reads the spans of one text."""

    def __init__(self, reader: JsonReader) -> None:
        self._reader = reader
        self._spans = 0

    def read(self) -> _Node:
        reader = self._reader
        start = reader.whole().start
        if reader.first(start) != b"{":
            # What is no JSON at all is said to be that.
            reader.nothing_after(reader.value(start, 0).end)
            raise FieldError("the trace", "an object")
        root, end = self._node(start, 0, "")
        reader.nothing_after(end)
        return root

    def _node(self, start: int, depth: int, path: str) -> tuple[_Node, int]:
        reader = self._reader
        self._spans += 1
        if self._spans > MAX_SPANS:
            raise RequestTooLargeError(f"a plain trace has at most {MAX_SPANS:,} spans")
        node = _Node(path)

        def take(name: bytes, pos: int) -> int:
            if name == b"children" and reader.first(pos) == b"[":
                return self._children(node, pos, depth + 1)
            value = reader.value(pos, depth + 1)
            if name in _KNOWN and not reader.is_null(value):
                node.fields[name] = value
            return value.end

        end = reader.object(start, depth, take)
        if b"children" in node.fields:
            raise FieldError(f"{path}children", "an array")
        if b"name" not in node.fields:
            raise FieldError(f"{path}name", "the span's name")
        start_field, end_field, took = (node.fields.get(key) for key in (b"start", b"end", b"duration_ms"))
        node.times = Times(
            None if start_field is None else reader.time(start_field, f"{path}start"),
            None if end_field is None else reader.time(end_field, f"{path}end"),
            None if took is None else reader.duration(took, f"{path}duration_ms"),
        )
        node.times.settle([child.times for child in node.children])
        return node, end

    def _children(self, node: _Node, start: int, depth: int) -> int:
        reader = self._reader

        def take(pos: int) -> int:
            path = f"{node.path}children[{len(node.children)}]"
            if reader.first(pos) != b"{":
                reader.value(pos, depth + 1)
                raise FieldError(path, "an object")
            child, end = self._node(pos, depth + 1, f"{path}.")
            node.children.append(child)
            return end

        return reader.array(start, depth, take)


class _Writing:
    """Writes one request."""

    def __init__(self, reader: JsonReader, digest: bytes, max_size: int) -> None:
        self._reader = reader
        self._digest = digest
        self._budget = Budget(max_size)
        self._request = ExportTraceServiceRequest()
        group = self._request.resource_spans.add()
        self._resource = group.resource
        self._scope = group.scope_spans.add()
        self._scope.scope.name = SCOPE

    def write(self, root: _Node, received: int) -> PlainTrace:
        self._describe(root)
        duration = root.times.duration or 0
        self._span(root, b"", max(0, received - duration))
        return PlainTrace(self._request.SerializeToString(), self._digest[:16].hex(), len(self._scope.spans))

    def _describe(self, root: _Node) -> None:
        project = root.fields.get(b"project")
        name = "" if project is None else self._reader.readable(project)
        resource = Attributes(self._resource.attributes, self._budget)
        if name.strip():
            resource.put("neatlogs.project", name)
        resource.put("service.name", name if name.strip() else "unknown_service")

    def _span(self, node: _Node, parent: bytes, at: int) -> int:
        """Write a span that begins `at` if it does not say when, and its children. Returns when it ended."""
        start, end = node.times.place(at)
        span = self._scope.spans.add(
            trace_id=self._digest[:16],
            span_id=self._span_id(),
            parent_span_id=parent,
            kind=Span.SPAN_KIND_INTERNAL,
            start_time_unix_nano=start,
            end_time_unix_nano=end,
        )
        SpanWriter(self._reader, self._budget, span, node.fields, node.path).write(is_root=not parent)
        following = start
        for child in node.children:
            following = self._span(child, span.span_id, following)
        return end

    def _span_id(self) -> bytes:
        return sha256(self._digest + len(self._scope.spans).to_bytes(4, "big")).digest()[:8]
