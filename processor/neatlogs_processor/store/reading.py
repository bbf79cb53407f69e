"""Reading what `writing` wrote: whole spans, with their resource and scope, as they were sent."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from neatlogs_processor.store.blocks import decompress


@dataclass(frozen=True)
class StoredSpan:
    """One span, whole.

    Attributes:
        span: As it was sent, after the rule.
        resource: Its resource.
        scope: Its scope.
    """

    span: Span
    resource: Resource
    scope: InstrumentationScope


def read_trace(connection: sqlite3.Connection, trace: int, limit: int = -1) -> list[StoredSpan]:
    """Return the spans of a trace by start, then span id.

    Args:
        connection: Made by `files.open_reader` or `files.open_writer`.
        trace: `traces.id`.
        limit: How many: roots before children, and of each the earliest. All of them where it is negative.

    Raises:
        ValueError: A block is damaged.
        sqlite3.Error: The store cannot be read.
    """
    resources: dict[int, ResourceSpans] = {}
    scopes: dict[int, ScopeSpans] = {}
    found = []
    for span, resource, scope in _spans(connection, trace, limit):
        if resource not in resources:
            resources[resource] = _resource(connection, resource)
        if scope not in scopes:
            scopes[scope] = _scope(connection, scope)
        found.append(StoredSpan(span, resources[resource].resource, scopes[scope].scope))
    found.sort(key=lambda stored: (stored.span.start_time_unix_nano, stored.span.span_id))
    return found


def read_request(connection: sqlite3.Connection, trace: int) -> ExportTraceServiceRequest:
    """Return a trace as one request that the processor can take in again; see `read_trace`."""
    request = ExportTraceServiceRequest()
    resources: dict[int, ResourceSpans] = {}
    scopes: dict[tuple[int, int], ScopeSpans] = {}
    for span, resource, scope in _spans(connection, trace):
        if resource not in resources:
            resources[resource] = request.resource_spans.add()
            resources[resource].CopyFrom(_resource(connection, resource))
        if (resource, scope) not in scopes:
            scopes[resource, scope] = resources[resource].scope_spans.add()
            scopes[resource, scope].CopyFrom(_scope(connection, scope))
        scopes[resource, scope].spans.add().CopyFrom(span)
    return request


def _spans(connection: sqlite3.Connection, trace: int, limit: int = -1) -> Iterator[tuple[Span, int, int]]:
    rows = connection.execute(
        "SELECT block, position, resource, scope FROM (SELECT * FROM spans WHERE trace = ?"
        " ORDER BY min(rank, 2), start, span_id LIMIT ?) ORDER BY block, position",
        (trace, limit),
    ).fetchall()
    block, spans = None, []
    for number, position, resource, scope in rows:
        if number != block:
            row = connection.execute("SELECT body FROM blocks WHERE id = ?", (number,)).fetchone()
            block, spans = number, decompress(row[0] if row else b"")
        if position >= len(spans):
            raise ValueError(f"block {number} is not complete")
        yield spans[position], resource, scope


def _resource(connection: sqlite3.Connection, number: int) -> ResourceSpans:
    row = connection.execute("SELECT body FROM resources WHERE id = ?", (number,)).fetchone()
    return ResourceSpans.FromString(row[0]) if row else ResourceSpans()


def _scope(connection: sqlite3.Connection, number: int) -> ScopeSpans:
    row = connection.execute("SELECT body FROM scopes WHERE id = ?", (number,)).fetchone()
    return ScopeSpans.FromString(row[0]) if row else ScopeSpans()
