"""Who sets the end user: by service, by day, by handler; and where overrides are ignored."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from neatlogs_processor.query.dialect import Condition
from neatlogs_processor.query.results import Coverage, CoverageRow, HandlerRow, OverridePlaceRow
from neatlogs_processor.query.view import View
from neatlogs_processor.store.selecting import traces_of

# ruff: noqa: S608  # names and conditions are constants of this package, values are bound

MAX_ROWS: Final = 200
"""How many services, days, handlers and places are listed, the largest (of days: the latest) first."""

DAY: Final = 86_400 * 10**9
"""Nanoseconds of a day."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_SUMS: Final = (
    "count(*), coalesce(sum(t.head_rank < 2 AND t.end_user IS NOT NULL), 0),"
    " coalesce(sum(t.head_rank < 2 AND t.end_user IS NULL), 0), coalesce(sum(t.head_rank = 2), 0)"
)


def coverage(connection: sqlite3.Connection, view: View, now: int) -> Coverage:
    """See `TraceReader.coverage`."""
    condition = traces_of(view, now)
    run = connection.execute
    total = run(f"SELECT {_SUMS} FROM traces AS t WHERE {condition.sql}", condition.parameters).fetchone()
    services = run(
        f"SELECT t.service, {_SUMS} FROM traces AS t WHERE {condition.sql}"
        " GROUP BY t.service ORDER BY count(*) DESC, t.service LIMIT ?",
        (*condition.parameters, MAX_ROWS),
    )
    days = run(
        f"SELECT t.start / {DAY} AS day, {_SUMS} FROM traces AS t WHERE {condition.sql}"
        " GROUP BY day ORDER BY day DESC LIMIT ?",
        (*condition.parameters, MAX_ROWS),
    )
    # max() makes SQLite take the other columns from the row that holds it:
    # https://www.sqlite.org/lang_select.html#bareagg
    handlers = run(
        f"SELECT t.service, t.name, count(*), t.trace_id, max(t.start) FROM traces AS t WHERE {condition.sql}"
        " AND t.head_rank < 2 AND t.end_user IS NULL"
        " GROUP BY t.service, t.name ORDER BY count(*) DESC, t.service, t.name LIMIT ?",
        (*condition.parameters, MAX_ROWS),
    )
    return Coverage(
        total=CoverageRow("", *total),
        services=tuple(CoverageRow(*row) for row in services),
        days=tuple(CoverageRow(day_name(number), *sums) for number, *sums in reversed(days.fetchall())),
        handlers=tuple(
            HandlerRow(service, name or "", count, trace_id.hex()) for service, name, count, trace_id, _ in handlers
        ),
        overrides=_overrides(connection, condition, view, now),
    )


def _overrides(
    connection: sqlite3.Connection, condition: Condition, view: View, now: int
) -> tuple[OverridePlaceRow, ...]:
    selected = (
        f"SELECT o.*, t.trace_id, t.start FROM overrides AS o JOIN traces AS t ON t.id = o.trace WHERE {condition.sql}"
    )
    parameters: tuple[Any, ...] = condition.parameters
    if not view.filters:
        # An instrumentation scope belongs to no trace, and so to no filter.
        low, high = view.period.bounds(now)
        selected += (
            " UNION ALL SELECT o.*, x'', o.received FROM overrides AS o"
            " WHERE o.trace = 0 AND o.received >= ? AND o.received < ?"
        )
        parameters = (*parameters, low, high)
    found = connection.execute(
        f"SELECT service, span_name, place, key, count(*), trace_id, max(start) FROM ({selected})"
        " GROUP BY service, span_name, place, key ORDER BY count(*) DESC, service, span_name, place, key LIMIT ?",
        (*parameters, MAX_ROWS),
    )
    return tuple(
        OverridePlaceRow(service, name, place, key, count, trace_id.hex())
        for service, name, place, key, count, trace_id, _ in found
    )


def day_name(number: int) -> str:
    """Return a day, counted from the epoch, as `2026-11-20`."""
    return f"{_EPOCH + timedelta(days=number):%Y-%m-%d}"
