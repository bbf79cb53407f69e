"""What a Collector writes is on the page: the rule applied in SQL to rows that never passed the processor."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from support.clickhouse_store import Database, rollups_of

TRACE = "0123456789abcdef0123456789abcdef"
AT = datetime(2026, 11, 20, 10, tzinfo=timezone.utc)
# The columns of the exporter's own INSERT, in its order:
# https://github.com/open-telemetry/opentelemetry-collector-contrib/tree/main/exporter/clickhouseexporter
COLUMNS = (
    *("Timestamp", "TraceId", "SpanId", "ParentSpanId", "TraceState", "SpanName", "SpanKind", "ServiceName"),
    *("ResourceAttributes", "ScopeName", "ScopeVersion", "SpanAttributes", "Duration", "StatusCode", "StatusMessage"),
    *("Events.Timestamp", "Events.Name", "Events.Attributes"),
    *("Links.TraceId", "Links.SpanId", "Links.TraceState", "Links.Attributes"),
)


def row(span_id: str, parent: str = "", **said: Any) -> tuple[Any, ...]:
    """A row as the exporter writes it."""
    values: dict[str, Any] = {
        "Timestamp": AT,
        "TraceId": TRACE,
        "SpanId": span_id * 16,
        "ParentSpanId": parent * 16,
        "SpanName": "POST /chat",
        "SpanKind": "Server",
        "ServiceName": "shop",
        "ResourceAttributes": {"service.name": "shop"},
        "SpanAttributes": {},
        "Duration": 5_000_000,
        "StatusCode": "Unset",
        **said,
    }
    empty: dict[str, Any] = {column: [] for column in COLUMNS[15:]}
    return tuple({**dict.fromkeys(COLUMNS, ""), **empty, **values}[column] for column in COLUMNS)


def rollup(database: Database, *rows: tuple[Any, ...]) -> dict[str, Any]:
    """Insert rows, and return what the rollup says of their trace."""
    database.insert(COLUMNS, rows)
    return rollups_of(database.client)[bytes.fromhex(TRACE)]


def test_a_collectors_trace_is_rolled_up_as_one_of_ours(database: Database) -> None:
    """End user, metadata, session, tags, tokens, errors and times come from the columns that the exporter fills."""
    found = rollup(
        database,
        row(
            "1",
            ResourceAttributes={"service.name": "shop", "neatlogs.workflow_name": "support", "neatlogs.tags": "blue"},
            SpanAttributes={
                "neatlogs.end_user.id": "alice",
                "neatlogs.end_user.metadata": '{"plan":"pro"}',
                "neatlogs.end_user.source": "trace",
                "neatlogs.session.id": "s-1",
                "neatlogs.tags": "green, blue",
            },
            StatusCode="Ok",
        ),
        row("2", "1", SpanAttributes={"gen_ai.usage.input_tokens": "12", "gen_ai.usage.output_tokens": "30"}),
        row("3", "1", ServiceName="tickets", StatusCode="Error"),
    )
    assert found == {
        "start": 1_795_168_800 * 10**9,
        "end": 1_795_168_800 * 10**9 + 5_000_000,
        "spans": 3,
        "errors": 1,
        "tokens_input": 12,
        "tokens_output": 30,
        "tokens": 42,
        "roots": 1,
        "services": {"shop", "tickets"},
        "head_rank": 1,
        "status": 1,
        "service": "shop",
        "name": "POST /chat",
        "workflow": "support",
        "session": "s-1",
        "end_user": "alice",
        "source": "trace",
        "metadata": {"plan": "pro"},
        "tags": {"blue", "green"},
    }


def test_identity_on_a_collectors_children_is_ignored_and_recorded(database: Database) -> None:
    """It is never the trace's end user, and the page shows where it stood: on spans, in events, in links."""
    identity = {"neatlogs.end_user.id": "mallory", "neatlogs.end_user": "x", "neatlogs.end_users": "another key"}
    found = rollup(
        database,
        row("1", SpanAttributes={"neatlogs.end_user.id": "alice"}),
        row("2", "1", SpanName="lookup", SpanAttributes=identity),
        row(
            "3",
            "1",
            **{
                "Events.Timestamp": [AT],
                "Events.Name": ["e"],
                "Events.Attributes": [identity],
                "Links.TraceId": [TRACE],
                "Links.SpanId": ["4" * 16],
                "Links.TraceState": [""],
                "Links.Attributes": [identity],
            },
        ),
    )
    assert (found["end_user"], found["roots"]) == ("alice", 1)
    recorded = database.client.query(
        "SELECT span_id, place, key FROM neatlogs_overrides FINAL ORDER BY ALL"
    ).result_rows
    keys = ("neatlogs.end_user", "neatlogs.end_user.id")
    assert recorded == [
        *(("2" * 16, "child", key) for key in keys),
        *(("3" * 16, place, key) for place in ("event", "link") for key in keys),
    ]


DEFAULT = {
    "service.name": "shop",
    "neatlogs.end_user.id": "default",
    "neatlogs.end_user.metadata": '{"plan":"free"}',
}


@pytest.mark.parametrize(
    ("own", "end_user", "metadata", "source"),
    [
        ({}, "default", {"plan": "free"}, "resource"),
        ({"neatlogs.end_user.id": " "}, "default", {"plan": "free"}, "resource"),
        ({"neatlogs.end_user.source": "init"}, "default", {"plan": "free"}, "init"),
        ({"neatlogs.end_user.metadata": '{"plan":"pro"}'}, "default", {"plan": "pro"}, "resource"),
        ({"neatlogs.end_user.id": "alice"}, "alice", None, None),
    ],
    ids=["nothing", "blank", "a source", "metadata", "an end user"],
)
def test_a_default_on_a_collectors_resource_lands_on_its_roots(
    database: Database, own: dict[str, str], end_user: str, metadata: Any, source: str | None
) -> None:
    """As the rule moves it: to roots without an id, with its metadata unless the root has metadata."""
    found = rollup(database, row("1", ResourceAttributes=DEFAULT, SpanAttributes=own))
    assert (found["end_user"], found["metadata"], found["source"]) == (end_user, metadata, source)


def test_a_default_never_lands_on_a_collectors_children(database: Database) -> None:
    """A trace whose root has not arrived has no end user that anybody knows."""
    found = rollup(database, row("2", "1", ResourceAttributes=DEFAULT))
    assert (found["head_rank"], found["end_user"], found["source"], found["service"]) == (2, None, None, "shop")


@pytest.mark.parametrize("metadata", ["[1]", "not json", '{"a":', '"text"', "7", ""])
def test_metadata_that_is_no_object_is_none(database: Database, metadata: str) -> None:
    """It stays with its span, and cannot be filtered by."""
    said = {"neatlogs.end_user.id": "alice", "neatlogs.end_user.metadata": metadata}
    assert rollup(database, row("1", SpanAttributes=said))["metadata"] is None


def test_older_spellings_of_a_status_are_understood(database: Database) -> None:
    """Before 2024 the exporter wrote the names of OTLP's constants."""
    found = rollup(database, row("1", StatusCode="STATUS_CODE_ERROR"), row("2", "1", StatusCode="STATUS_CODE_OK"))
    assert (found["status"], found["errors"]) == (2, 1)


def test_completion_markers_are_not_counted(database: Database) -> None:
    """Children of that name are no spans of the application; a root of that name is one."""
    found = rollup(database, row("1"), row("2", "1", SpanName="neatlogs.trace.complete"))
    assert found["spans"] == 1


def test_a_trace_over_midnight_is_one_trace(database: Database) -> None:
    """Its spans are of two days, and so are the rows of its rollup."""
    late = AT.replace(hour=23, minute=59)
    found = rollup(
        database, row("1", Timestamp=late, Duration=10**11), row("2", "1", Timestamp=late.replace(day=21, hour=0))
    )
    assert (found["spans"], found["roots"]) == (2, 1)
    assert database.number("SELECT uniqExact(day) FROM neatlogs_traces") == 2


@pytest.mark.parametrize(
    "text", ["unhex('ff00fe')", "repeat('x', 1000000)", "'\\0'", "repeat('[', 100000)", "'-1e999'"]
)
def test_no_row_makes_an_insert_fail(database: Database, text: str) -> None:
    """The views must not cost a Collector its own inserts, whatever stands in a row: no text, too much of it."""
    identity = "'neatlogs.end_user.id', 'neatlogs.end_user.metadata'"
    keys = f"{identity}, 'neatlogs.tags', 'gen_ai.usage.input_tokens', 'session.id'"
    said = f"mapFromArrays([{keys}], arrayMap(key -> {text}, [{keys}]))"
    database.client.command(
        "INSERT INTO otel_traces (Timestamp, TraceId, SpanId, ParentSpanId, SpanName, ServiceName, ResourceAttributes,"
        " SpanAttributes, Duration, StatusCode, `Events.Timestamp`, `Events.Name`, `Events.Attributes`)"
        f" SELECT toDateTime64('1900-01-01 00:00:00', 9, 'UTC'), {text}, {text}, '', {text}, {text}, {said}, {said},"
        f" 18446744073709551615, {text}, [toDateTime64('2262-04-11 00:00:00', 9, 'UTC')], [{text}], [{said}]"
    )
    assert database.number("SELECT count() FROM otel_traces") == 1
    assert database.number("SELECT count() FROM neatlogs_traces") == 1
