"""From the bytes of an enforced request to rows of `otel_traces`, as the Collector's exporter would fill them.

Attributes are text in that table: numbers are written as JSON writes them, bytes as base64, lists and maps as JSON.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeAlias

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.policy import EndUserPolicy, is_entry_span, is_root_span
from neatlogs_processor.store.clickhouse.schema import ENTRY_SPAN
from neatlogs_processor.store.message import read_message

COLUMNS: Final = (
    *("Timestamp", "TraceId", "SpanId", "ParentSpanId", "TraceState", "SpanName", "SpanKind", "ServiceName"),
    *("ResourceAttributes", "ScopeName", "ScopeVersion", "SpanAttributes", "Duration", "StatusCode", "StatusMessage"),
    *("Events.Timestamp", "Events.Name", "Events.Attributes"),
    *("Links.TraceId", "Links.SpanId", "Links.TraceState", "Links.Attributes"),
)
"""The columns of `otel_traces`, in the order of a row."""

TYPES: Final = (
    *("DateTime64(9)", "String", "String", "String", "String"),
    *("LowCardinality(String)", "LowCardinality(String)", "LowCardinality(String)"),
    *("Map(LowCardinality(String), String)", "String", "String", "Map(LowCardinality(String), String)", "UInt64"),
    *("LowCardinality(String)", "String"),
    *("Array(DateTime64(9))", "Array(LowCardinality(String))", "Array(Map(LowCardinality(String), String))"),
    *("Array(String)", "Array(String)", "Array(String)", "Array(Map(LowCardinality(String), String))"),
)
"""Their types."""

MAX_TIME: Final = 2**63 - 1
"""The latest time that a `DateTime64(9)` holds, in nanoseconds since the epoch."""

_KINDS: Final = ("Unspecified", "Internal", "Server", "Client", "Producer", "Consumer")
_STATUSES: Final = ("Unset", "Ok", "Error")
_DAY: Final = 86_400 * 10**9
_MAX_DEPTH: Final = 64
"""Values nested deeper are left out, as on the page."""
_JSON_FLOATS: Final = (1e-6, 1e21)
"""Between these JSON writes a number without an exponent."""

Row: TypeAlias = tuple[Any, ...]
"""One span: its values in the order of `COLUMNS`. Times are nanoseconds since the epoch, maps are dictionaries."""


class Spans(NamedTuple):
    """What one request holds.

    Attributes:
        rows: A row for each span by its trace id and span id, each span once, in the order of the request.
        without_id: How many spans cannot be kept because their trace id or span id is missing.
    """

    rows: dict[tuple[bytes, bytes], Row]
    without_id: int


def read_spans(body: bytes, policy: EndUserPolicy) -> Spans:
    """Return what an enforced request holds.

    Args:
        body: A serialised `ExportTraceServiceRequest`.
        policy: The policy that the rule enforced: it says which entry spans own identity.

    Raises:
        MalformedOtlpError: Protobuf cannot read it.
    """
    message = read_message(body)
    rows: dict[tuple[bytes, bytes], Row] = {}
    without_id = 0
    for resource_spans in message.resource_spans:
        resource = text_attributes(resource_spans.resource.attributes)
        service = resource.get("service.name", "")
        is_entry_service = policy.roots == "entry" and service in policy.entry_services
        for scope_spans in resource_spans.scope_spans:
            shared = (service, resource, scope_spans.scope.name, scope_spans.scope.version)
            for span in scope_spans.spans:
                place = span.trace_id, span.span_id
                if not (place[0].strip(b"\0") and place[1].strip(b"\0")):
                    without_id += 1
                elif place not in rows:
                    is_entry = is_entry_service and is_entry_span(span.parent_span_id, span.flags)
                    rows[place] = _row(span, *shared, is_entry=is_entry)
    return Spans(rows, without_id)


def day_of(row: Row) -> int:
    """Return the day in which a span starts: `otel_traces` is partitioned by it."""
    return int(row[0]) // _DAY


def text_attributes(attributes: Iterable[KeyValue]) -> dict[str, str]:
    """Return attributes as the table holds them; of a key that stands twice the first one, as the rule reads it."""
    found: dict[str, str] = {}
    for attribute in attributes:
        value = attribute.value
        if attribute.key not in found:
            # Most are text.
            found[attribute.key] = value.string_value if value.HasField("string_value") else _text(value)
    return found


def _row(span: Span, service: str, resource: dict[str, str], scope: str, scope_version: str, *, is_entry: bool) -> Row:
    start, end = min(span.start_time_unix_nano, MAX_TIME), min(span.end_time_unix_nano, MAX_TIME)
    attributes = text_attributes(span.attributes)
    # Whoever says so of themselves is not heard.
    attributes.pop(ENTRY_SPAN, None)
    if is_entry:
        attributes[ENTRY_SPAN] = "true"
    kind, status = span.kind, span.status
    return (
        *(start, span.trace_id.hex(), span.span_id.hex()),
        "" if is_root_span(span.parent_span_id) else span.parent_span_id.hex(),
        *(span.trace_state, span.name, _KINDS[kind] if 0 <= kind < len(_KINDS) else "", service),
        *(resource, scope, scope_version, attributes),
        # Unsigned, as the Collector subtracts: what ends before it starts comes out near 2^64.
        (end - start) % 2**64,
        *(_STATUSES[status.code] if 0 <= status.code < len(_STATUSES) else "", status.message),
        [min(event.time_unix_nano, MAX_TIME) for event in span.events],
        [event.name for event in span.events],
        [text_attributes(event.attributes) for event in span.events],
        [link.trace_id.hex() for link in span.links],
        [link.span_id.hex() for link in span.links],
        [link.trace_state for link in span.links],
        [text_attributes(link.attributes) for link in span.links],
    )


def _text(value: AnyValue) -> str:
    which = value.WhichOneof("value")
    if which in ("array_value", "kvlist_value"):
        return json.dumps(_plain(value, _MAX_DEPTH), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    plain = _plain(value, _MAX_DEPTH)
    if isinstance(plain, bool):
        return "true" if plain else "false"
    if isinstance(plain, float):
        return _number(plain)
    return "" if plain is None else str(plain)


def _plain(value: AnyValue, depth: int) -> Any:
    which = value.WhichOneof("value")
    if which is None or not depth:
        return None
    if which == "array_value":
        return [_plain(item, depth - 1) for item in value.array_value.values]
    if which == "kvlist_value":
        found: dict[str, Any] = {}
        for item in value.kvlist_value.values:
            found.setdefault(item.key, _plain(item.value, depth - 1))
        return found
    if which == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    if which == "double_value" and not math.isfinite(value.double_value):
        return str(value.double_value)
    return getattr(value, which)


def _number(number: float) -> str:
    """Write a number as Go's JSON does: digits alone where that is not too long, and no zeros that say nothing."""
    least, most = _JSON_FLOATS
    if number == 0 or least <= abs(number) < most:
        text = format(Decimal(repr(number)), "f")
        return text.rstrip("0").removesuffix(".") if "." in text else text
    return repr(number).replace("e-0", "e-")
