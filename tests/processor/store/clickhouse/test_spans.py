"""Rows of `otel_traces`: what the Collector's exporter would write for the same request."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.errors import MalformedOtlpError
from neatlogs_processor.store.clickhouse.spans import COLUMNS, TYPES, Spans, read_spans
from support.store_strategies import attributes

ENTRY = EndUserPolicy("entry", frozenset({"gateway"}))


def read(*spans: Span, resource: dict[str, Any] | None = None, policy: EndUserPolicy = EndUserPolicy()) -> Spans:  # noqa: B008  # frozen
    """Return what a request with these spans becomes."""
    scope = ScopeSpans(scope=InstrumentationScope(name="shop.tracer", version="1.2"), spans=spans)
    of_resource = Resource(attributes=attributes(resource or {"service.name": "shop"}))
    request = ExportTraceServiceRequest(resource_spans=[ResourceSpans(resource=of_resource, scope_spans=[scope])])
    return read_spans(request.SerializeToString(), policy)


def row(span: Span, **said: Any) -> dict[str, Any]:
    """Return the row of one span, by column."""
    (values,) = read(span, **said).rows.values()
    return dict(zip(COLUMNS, values, strict=True))


def span(**fields: Any) -> Span:
    """A root span, unless the fields say otherwise."""
    return Span(**{"trace_id": b"\x0a" * 16, "span_id": b"\x0b" * 8, "name": "chat", **fields})


def test_a_row_is_spelled_as_the_collectors_exporter_spells_it() -> None:
    """Ids are hexadecimal, kinds and statuses are words, times are nanoseconds, and events and links are arrays."""
    found = row(
        span(
            parent_span_id=b"\x0c" * 8,
            trace_state="vendor=1",
            kind=Span.SPAN_KIND_SERVER,
            start_time_unix_nano=10,
            end_time_unix_nano=25,
            status=Status(code=Status.STATUS_CODE_ERROR, message="out of paper"),
            attributes=attributes({"http.route": "/chat"}),
            events=[Span.Event(name="retry", time_unix_nano=12, attributes=attributes({"attempt": 2}))],
            links=[Span.Link(trace_id=b"\x01" * 16, span_id=b"\x02" * 8, trace_state="a=b")],
        )
    )
    assert found == {
        "Timestamp": 10,
        "TraceId": "0a" * 16,
        "SpanId": "0b" * 8,
        "ParentSpanId": "0c" * 8,
        "TraceState": "vendor=1",
        "SpanName": "chat",
        "SpanKind": "Server",
        "ServiceName": "shop",
        "ResourceAttributes": {"service.name": "shop"},
        "ScopeName": "shop.tracer",
        "ScopeVersion": "1.2",
        "SpanAttributes": {"http.route": "/chat"},
        "Duration": 15,
        "StatusCode": "Error",
        "StatusMessage": "out of paper",
        "Events.Timestamp": [12],
        "Events.Name": ["retry"],
        "Events.Attributes": [{"attempt": "2"}],
        "Links.TraceId": ["01" * 16],
        "Links.SpanId": ["02" * 8],
        "Links.TraceState": ["a=b"],
        "Links.Attributes": [{}],
    }
    assert len(COLUMNS) == len(TYPES)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (AnyValue(string_value="ß"), "ß"),
        (AnyValue(bool_value=True), "true"),
        (AnyValue(bool_value=False), "false"),
        (AnyValue(int_value=-(2**63)), "-9223372036854775808"),
        (AnyValue(double_value=12.0), "12"),
        (AnyValue(double_value=0.1), "0.1"),
        (AnyValue(double_value=-0.00001), "-0.00001"),
        (AnyValue(double_value=1e20), "100000000000000000000"),
        (AnyValue(double_value=1e21), "1e+21"),
        (AnyValue(double_value=1e-7), "1e-7"),
        (AnyValue(double_value=0.0), "0"),
        (AnyValue(double_value=float("nan")), "nan"),
        (AnyValue(bytes_value=b"\x00\xff"), "AP8="),
        (AnyValue(), ""),
        (
            AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=1), AnyValue(string_value="<ß>")])),
            '[1,"<ß>"]',
        ),
        (
            AnyValue(
                kvlist_value=KeyValueList(
                    values=[
                        KeyValue(key="b", value=AnyValue(double_value=0.5)),
                        KeyValue(key="a", value=AnyValue(bytes_value=b"x")),
                    ]
                )
            ),
            '{"a":"eA==","b":0.5}',
        ),
    ],
    ids=repr,
)
def test_every_value_of_otlp_is_text(value: AnyValue, text: str) -> None:
    """Numbers are written as JSON writes them, bytes as base64, lists and maps as JSON."""
    assert row(span(attributes=[KeyValue(key="k", value=value)]))["SpanAttributes"] == {"k": text}


def test_of_a_key_that_stands_twice_the_first_value_counts() -> None:
    """The rule reads it so, and so does the embedded store."""
    twice = [*attributes({"k": "first"}), *attributes({"k": "second"})]
    assert row(span(attributes=twice))["SpanAttributes"] == {"k": "first"}


def test_an_end_before_the_start_wraps_as_the_collectors_subtraction_does() -> None:
    """Nothing is lost: the end can be worked out of the start and the duration."""
    found = row(span(start_time_unix_nano=100, end_time_unix_nano=40))
    assert found["Duration"] == 2**64 - 60


def test_times_beyond_the_year_2262_are_the_last_that_the_column_holds() -> None:
    """OTLP's times have one bit more than ClickHouse's."""
    found = row(span(start_time_unix_nano=2**64 - 1, end_time_unix_nano=2**64 - 1))
    assert (found["Timestamp"], found["Duration"]) == (2**63 - 1, 0)


@pytest.mark.parametrize("parent", [b"", bytes(8)])
def test_a_root_has_no_parent_however_its_sender_writes_that(parent: bytes) -> None:
    """The Collector writes an empty text for zeros, too."""
    assert row(span(parent_span_id=parent))["ParentSpanId"] == ""


@pytest.mark.parametrize(
    ("service", "flags", "marked"), [("gateway", 0x301, True), ("gateway", 0x101, False), ("shop", 0x301, False)]
)
def test_entry_spans_of_listed_services_are_marked(service: str, flags: int, marked: bool) -> None:
    """The table has no column for flags, so an attribute says it; with the strict rule nothing is marked."""
    entry = span(parent_span_id=b"\x0c" * 8, flags=flags)
    resource = {"service.name": service}
    assert ("neatlogs.entry_span" in row(entry, resource=resource, policy=ENTRY)["SpanAttributes"]) is marked
    assert "neatlogs.entry_span" not in row(entry, resource=resource)["SpanAttributes"]


def test_nobody_can_claim_to_be_an_entry_span() -> None:
    """An attribute of that name is not kept, whoever sends it."""
    forged = span(parent_span_id=b"\x0c" * 8, attributes=attributes({"neatlogs.entry_span": "true", "k": "v"}))
    assert row(forged, policy=ENTRY)["SpanAttributes"] == {"k": "v"}


def test_spans_without_ids_are_counted_and_left_out() -> None:
    """Nothing could find them again; a span that stands twice in a request has one row."""
    found = read(span(), span(), span(span_id=b""), span(trace_id=bytes(16)))
    assert (len(found.rows), found.without_id) == (1, 2)


def test_what_is_no_otlp_is_refused() -> None:
    """The error says so, and repeats nothing of it."""
    with pytest.raises(MalformedOtlpError, match="it is not OTLP"):
        read_spans(b"\xff\xff", EndUserPolicy())
