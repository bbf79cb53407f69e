"""A whole trace, read from the Collector's table. Its attributes are text there, whatever they were once.

What that table does not keep is not shown: types of attributes, attributes of scopes, what an SDK has dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from neatlogs_processor.core.schema import in_namespace
from neatlogs_processor.query.results import EventDetail, LinkDetail, OverrideRow, SpanDetail, TraceDetail, TraceRow
from neatlogs_processor.store.clickhouse.asking import Question
from neatlogs_processor.store.clickhouse.schema import ENTRY_SPAN
from neatlogs_processor.store.clickhouse.traces import these_traces
from neatlogs_processor.store.details import MAX_OVERRIDES, MAX_SPANS, waterfall
from neatlogs_processor.store.rows import COMPLETION_MARKER, kind_and_tokens

# ruff: noqa: S608  # names are constants of this package, values are bound

_COLUMNS: Final = (
    "SpanId, ParentSpanId, SpanName, SpanKind, greatest(toUnixTimestamp64Nano(Timestamp), 0) AS start,"
    " greatest(toUnixTimestamp64Nano(Timestamp) + reinterpretAsInt64(Duration), 0) AS end_,"
    " StatusCode, StatusMessage, ServiceName, ScopeName, ScopeVersion, SpanAttributes, ResourceAttributes,"
    " arrayMap(one -> toUnixTimestamp64Nano(one), Events.Timestamp), Events.Name, Events.Attributes,"
    " Links.TraceId, Links.SpanId, Links.Attributes"
)
_RANK: Final = f"multiIf(ParentSpanId = '', 1, SpanAttributes['{ENTRY_SPAN}'] = 'true', 0, 2)"
_OTEL_KINDS: Final = frozenset({"unspecified", "internal", "server", "client", "producer", "consumer"})
_LOOKUP_ENDS: Final = 2**32 * 10**9
"""The lookup table has seconds of 32 bits; later times begin again at 0 in it."""


def trace(question: Question, trace_id: str) -> TraceDetail | None:
    """See `TraceReader.trace`."""
    found = these_traces(question, [trace_id])
    if not found:
        return None
    (record,) = found
    rows = _spans(question, record)
    spans = tuple(_span(row, depth) for row, depth in waterfall(rows, lambda row: (row[0], row[1])))
    overrides = question.rows(
        "SELECT DISTINCT span_id, place, service, span_name, key FROM neatlogs_overrides WHERE trace_id = ?"
        " ORDER BY span_id, place, key LIMIT ?",
        (trace_id, MAX_OVERRIDES),
    )
    return TraceDetail(
        trace=record,
        spans=spans,
        overrides=tuple(OverrideRow(*row) for row in overrides),
        spans_left_out=max(0, record.spans - len(spans)),
    )


def _spans(question: Question, record: TraceRow) -> list[tuple[Any, ...]]:
    """Return the spans by start, then span id; roots before children where there are too many."""
    within, parameters = "", []
    if max(record.start, record.end) < _LOOKUP_ENDS:
        ((first, last, count),) = question.rows(
            "SELECT toInt64(toUnixTimestamp(min(Start))), toInt64(toUnixTimestamp(max(End))), count()"
            " FROM otel_traces_trace_id_ts WHERE TraceId = ?",
            (record.trace_id,),
        )
        if count:
            within = " AND Timestamp >= fromUnixTimestamp64Second(?) AND Timestamp < fromUnixTimestamp64Second(?)"
            parameters = [first, last + 1]
    found = question.rows(
        f"SELECT {_COLUMNS} FROM (SELECT * FROM otel_traces WHERE TraceId = ?{within}"
        f" AND replaceAll(SpanId, '0', '') <> '' AND NOT (SpanName = ? AND {_RANK} = 2)"
        # A request that arrived twice has its spans there twice.
        f" ORDER BY least({_RANK}, 1 + ({_RANK} = 2)), Timestamp, SpanId LIMIT 1 BY SpanId LIMIT ?)",
        (record.trace_id, *parameters, COMPLETION_MARKER, MAX_SPANS),
    )
    return sorted(found, key=lambda row: (row[4], row[0]))


def _span(row: tuple[Any, ...], depth: int) -> SpanDetail:
    span_id, parent_id, name, otel_kind, start, end, status, message, service, scope, version = row[:11]
    said, resource, event_times, event_names, events, link_traces, link_spans, links = row[11:]
    owns_identity = not parent_id or said.get(ENTRY_SPAN) == "true"
    kind, tokens = kind_and_tokens(said)
    return SpanDetail(
        span_id=span_id,
        parent_id=parent_id,
        depth=depth,
        name=name,
        kind=kind,
        otel_kind=_otel_kind(otel_kind),
        owns_identity=owns_identity,
        start=start,
        end=end,
        duration=max(0, end - start),
        status=_status(status),
        status_message=message,
        tokens=tokens.total,
        service=service,
        scope=f"{scope} {version}".strip(),
        attributes=_shown(said, owns_identity=owns_identity),
        resource=_shown(resource, owns_identity=False),
        events=tuple(
            EventDetail(event, max(0, time), _shown(attributes, owns_identity=False))
            for event, time, attributes in zip(event_names, event_times, events, strict=True)
        ),
        links=tuple(
            LinkDetail(trace_id, span_id, _shown(attributes, owns_identity=False))
            for trace_id, span_id, attributes in zip(link_traces, link_spans, links, strict=True)
        ),
        dropped=0,
    )


def _shown(attributes: Mapping[str, str], *, owns_identity: bool) -> dict[str, Any]:
    """Return attributes without our own mark, and without identity where it does not count.

    Rows of ours have none there; those of a Collector may, and what is ignored must not look as if it were not.
    """
    return {
        key: value
        for key, value in attributes.items()
        if key != ENTRY_SPAN and (owns_identity or not in_namespace(key.encode("utf-8", "replace")))
    }


def _otel_kind(text: str) -> str:
    # Collectors before 0.100 wrote SPAN_KIND_SERVER.
    kind = text.lower().removeprefix("span_kind_")
    return kind if kind in _OTEL_KINDS else "unspecified"


def _status(text: str) -> str:
    status = text.lower().removeprefix("status_code_")
    return status if status in ("ok", "error") else "unset"
