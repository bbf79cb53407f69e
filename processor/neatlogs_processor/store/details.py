"""A whole trace, ready to be shown: its spans in the order of a waterfall, with everything that they say."""

from __future__ import annotations

import base64
import math
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.query.dialect import Condition
from neatlogs_processor.query.results import EventDetail, LinkDetail, OverrideRow, SpanDetail, TraceDetail
from neatlogs_processor.store.lists import some_traces, status_name
from neatlogs_processor.store.reading import StoredSpan, read_trace

S = TypeVar("S")

MAX_SPANS: Final = 10_000
"""How many spans of a trace are read: one of a million would take the memory that the receivers need."""

MAX_OVERRIDES: Final = 1000
"""How many of its overrides are read; how many there are says the row of the trace."""
_OTEL_KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
_OWNS_IDENTITY_BELOW: Final = 2
_MAX_TIME: Final = 2**63 - 1
_MAX_DEPTH: Final = 64
"""Values nested deeper are left out: nobody reads them, and Python's stack has an end."""


def trace(connection: sqlite3.Connection, trace_id: str) -> TraceDetail | None:
    """See `TraceReader.trace`."""
    try:
        wanted = bytes.fromhex(trace_id)
    except ValueError:
        return None
    row = connection.execute("SELECT id FROM traces WHERE trace_id = ?", (wanted,)).fetchone()
    if row is None:
        return None
    number = row[0]
    (record,) = some_traces(connection, Condition("t.id = ?", (number,)), "t.id", 1)
    said = {
        span_id: (rank, kind, tokens)
        for span_id, rank, kind, tokens in connection.execute(
            "SELECT span_id, rank, kind, tokens FROM spans WHERE trace = ?", (number,)
        )
    }
    overrides = connection.execute(
        "SELECT span_id, place, service, span_name, key FROM overrides WHERE trace = ? ORDER BY span_id, place, key"
        " LIMIT ?",
        (number, MAX_OVERRIDES),
    )
    found = read_trace(connection, number, MAX_SPANS)
    spans = tuple(_span(stored, depth, *said[stored.span.span_id]) for stored, depth in waterfall(found, _ids))
    return TraceDetail(
        trace=record,
        spans=spans,
        overrides=tuple(OverrideRow(span_id.hex(), *rest) for span_id, *rest in overrides),
        spans_left_out=len(said) - len(spans),
    )


def waterfall(spans: Sequence[S], ids: Callable[[S], tuple[Any, Any]]) -> Iterable[tuple[S, int]]:
    """Yield spans with their depth: parents before their children, siblings in the order given.

    A span whose parent has not arrived stands on the top, and so does one of a circle of parents.

    Args:
        spans: The spans, no two with the same id.
        ids: Returns the id of a span, and its parent's.
    """
    here = {ids(one)[0] for one in spans}
    children: dict[Any, list[S]] = {}
    tops = []
    for one in spans:
        span_id, parent = ids(one)
        if parent in here and parent != span_id:
            children.setdefault(parent, []).append(one)
        else:
            tops.append(one)
    shown: set[Any] = set()
    # The circles come last: nothing above them leads to them.
    for top in (*tops, *spans):
        waiting = [(top, 0)]
        while waiting:
            one, depth = waiting.pop()
            span_id, _ = ids(one)
            if span_id in shown:
                continue
            shown.add(span_id)
            yield one, depth
            waiting.extend((child, depth + 1) for child in reversed(children.get(span_id, ())))


def _ids(stored: StoredSpan) -> tuple[bytes, bytes]:
    return stored.span.span_id, stored.span.parent_span_id


def _span(stored: StoredSpan, depth: int, rank: int, kind: str, tokens: int) -> SpanDetail:
    span = stored.span
    start, end = _time(span.start_time_unix_nano), _time(span.end_time_unix_nano)
    resource = plain_attributes(stored.resource.attributes)
    return SpanDetail(
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() if any(span.parent_span_id) else "",
        depth=depth,
        name=span.name,
        kind=kind,
        otel_kind=_OTEL_KINDS[span.kind] if 0 <= span.kind < len(_OTEL_KINDS) else _OTEL_KINDS[0],
        owns_identity=rank < _OWNS_IDENTITY_BELOW,
        start=start,
        end=end,
        duration=max(0, end - start),
        status=status_name(span.status.code),
        status_message=span.status.message,
        tokens=tokens,
        service=str(resource.get("service.name", "")),
        scope=f"{stored.scope.name} {stored.scope.version}".strip(),
        attributes=plain_attributes(span.attributes),
        resource=resource,
        events=tuple(
            EventDetail(event.name, _time(event.time_unix_nano), plain_attributes(event.attributes))
            for event in span.events
        ),
        links=tuple(_link(link) for link in span.links),
        dropped=span.dropped_attributes_count + span.dropped_events_count + span.dropped_links_count,
    )


def _link(link: Span.Link) -> LinkDetail:
    return LinkDetail(link.trace_id.hex(), link.span_id.hex(), plain_attributes(link.attributes))


def _time(nanoseconds: int) -> int:
    return min(nanoseconds, _MAX_TIME)


def plain_attributes(attributes: Iterable[KeyValue], depth: int = _MAX_DEPTH) -> dict[str, Any]:
    """Return attributes as an object of JSON; of a key that stands twice the first one, as the rule reads it."""
    plain: dict[str, Any] = {}
    for attribute in attributes:
        if attribute.key not in plain:
            plain[attribute.key] = _plain(attribute.value, depth)
    return plain


def _plain(value: AnyValue, depth: int) -> Any:
    which = value.WhichOneof("value")
    if which is None or not depth:
        return None
    if which == "array_value":
        return [_plain(item, depth - 1) for item in value.array_value.values]
    if which == "kvlist_value":
        return plain_attributes(value.kvlist_value.values, depth - 1)
    if which == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    if which == "double_value":
        return value.double_value if math.isfinite(value.double_value) else str(value.double_value)
    return getattr(value, which)
