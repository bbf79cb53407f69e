"""Stored traces as OTLP JSON lines: each line is a request that the processor, or any OTLP/HTTP receiver, takes in."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from neatlogs_processor.core.otlp_json import MAX_DEPTH
from neatlogs_processor.core.otlp_json_writing import traces_to_json
from neatlogs_processor.errors import ProcessorError
from neatlogs_processor.query.view import View
from neatlogs_processor.store.files import open_reader
from neatlogs_processor.store.reading import read_request
from neatlogs_processor.store.selecting import traces_of

LINE_BYTES: Final = 2 * 2**20
"""A line holds a trace, or as many of its spans as have this size in protobuf: a receiver limits its requests."""

_TRACES_A_MOMENT: Final = 200


@dataclass
class Exported:
    """What was written.

    Attributes:
        traces: How many traces.
        spans: How many spans they hold.
        damaged: How many traces could not be read, and are missing.
        deep: How many lines nest deeper than the processor reads JSON.
    """

    traces: int = 0
    spans: int = 0
    damaged: int = 0
    deep: int = 0


def export(path: Path, view: View, now: int, write: Callable[[bytes], object]) -> Exported:
    """Write the traces that the view's filters and period select, in the order in which they arrived.

    No moment is held on to while the lines are written, so a long export holds up no clean-up of the log. Each trace is
    whole as of one moment; those that arrive meanwhile are exported or not.

    Args:
        path: The store's file. Another process may write it.
        view: Which traces.
        now: Nanoseconds since the epoch: where relative periods end.
        write: Takes one line, with its line feed.

    Raises:
        ConfigError: There is no store, or it cannot be used.
        ProcessorError: It cannot be read any more.
    """
    exported = Exported()
    connection = open_reader(path)
    try:
        for request in _requests(connection, view, now, exported):
            exported.traces += 1
            for piece, spans in _pieces(request):
                written = traces_to_json(piece)
                exported.deep += written.depth > MAX_DEPTH
                exported.spans += spans
                write(written.text + b"\n")
    except sqlite3.Error as error:
        raise ProcessorError(f"the store could not be read any further: {error}") from None
    finally:
        connection.close()
    return exported


def _requests(
    connection: sqlite3.Connection, view: View, now: int, exported: Exported
) -> Iterator[ExportTraceServiceRequest]:
    condition = traces_of(view, now)
    # By id alone, so that the traces behind a place are found at once; names and conditions are of this package.
    query = f"SELECT t.id FROM traces AS t NOT INDEXED WHERE t.id > ? AND {condition.sql} ORDER BY t.id LIMIT ?"  # noqa: S608  # names of our own; values are bound
    last = 0
    while True:
        rows = connection.execute(query, (last, *condition.parameters, _TRACES_A_MOMENT)).fetchall()
        for (number,) in rows:
            request = _read(connection, number, exported)
            if request is not None and request.resource_spans:
                yield request
        if len(rows) < _TRACES_A_MOMENT:
            return
        last = rows[-1][0]


def _read(connection: sqlite3.Connection, trace: int, exported: Exported) -> ExportTraceServiceRequest | None:
    connection.execute("BEGIN")
    try:
        return read_request(connection, trace)
    except ValueError:
        exported.damaged += 1
        return None
    finally:
        connection.execute("ROLLBACK")


def _pieces(request: ExportTraceServiceRequest) -> Iterator[tuple[ExportTraceServiceRequest, int]]:
    """Divide a trace into requests of about `LINE_BYTES`; yield each with its number of spans."""
    if request.ByteSize() <= LINE_BYTES:
        yield request, sum(len(part.spans) for one in request.resource_spans for part in one.scope_spans)
        return
    piece, size, spans = ExportTraceServiceRequest(), 0, 0
    for resource_spans in request.resource_spans:
        resource = None
        for scope_spans in resource_spans.scope_spans:
            scope = None
            for span in scope_spans.spans:
                if size > LINE_BYTES:
                    yield piece, spans
                    piece, size, spans, resource, scope = ExportTraceServiceRequest(), 0, 0, None, None
                if resource is None:
                    resource = piece.resource_spans.add(schema_url=resource_spans.schema_url)
                    resource.resource.CopyFrom(resource_spans.resource)
                if scope is None:
                    scope = resource.scope_spans.add(schema_url=scope_spans.schema_url)
                    scope.scope.CopyFrom(scope_spans.scope)
                scope.spans.add().CopyFrom(span)
                size += span.ByteSize()
                spans += 1
    yield piece, spans
