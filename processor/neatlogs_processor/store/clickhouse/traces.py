"""The list of traces over ClickHouse: its pages, and what stands beside a row.

A page is asked for in two steps: which rows stand on it, with no more columns than that takes, and then these rows by
name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from neatlogs_processor.query.clickhouse_dialect import ClickHouseDialect
from neatlogs_processor.query.dialect import Condition, conjunction
from neatlogs_processor.query.results import Neighbours, Page, TraceRow
from neatlogs_processor.query.view import Period, Sort, View
from neatlogs_processor.store.clickhouse.asking import MAX_LITERAL, Question, place_of
from neatlogs_processor.store.clickhouse.relation import DAYS_BESIDE, asks_roots, days_between, these
from neatlogs_processor.store.coverage import DAY
from neatlogs_processor.store.lists import NEWER_LIMIT, read_metadata, status_name
from neatlogs_processor.store.selecting import narrowed, order_of, traces_of, write_cursor
from neatlogs_processor.store.text import filterable_metadata, read_set

# ruff: noqa: S608  # names and conditions are constants of this package, values are bound

_TRACE_COLUMNS: Final = (
    't.trace_id, t.start, t."end", t.duration, t.spans, t.errors, t.tokens_input, t.tokens_output, t.tokens,'
    " t.head_rank, t.roots, t.status, t.service, t.name, t.workflow, t.session, t.end_user, t.source, t.metadata,"
    " t.services, t.tags"
)
_ROOT_NOT_RECEIVED: Final = 2
_LONGEST_WINDOW: Final = 40 * DAY


def traces(question: Question, view: View, now: int) -> Page[TraceRow]:
    """See `TraceReader.traces`."""
    place = place_of(view)
    found: list[tuple[Any, ...]] = []
    for looked_at in _windows(view if place is None else narrowed(view, now, place), now):
        dialect = question.dialect(looked_at, now)
        order = order_of(view, dialect)
        condition = traces_of(looked_at, now, dialect)
        if place is not None:
            condition = conjunction([condition, order.after(*place)])
        found = question.rows(
            f'SELECT t.trace_id, t.start, t."end", {order.expression} FROM {dialect.traces.sql} WHERE {condition.sql}'
            f" ORDER BY {order.by()} LIMIT ?",
            (*dialect.traces.parameters, *condition.parameters, view.limit + 1),
        )
        if len(found) > view.limit:
            break
    cursor = None
    if len(found) > view.limit:
        found = found[: view.limit]
        cursor = write_cursor(view, found[-1][-1], found[-1][0])
    return Page(_these_traces(question, found), cursor)


def _windows(view: View, now: int) -> Iterator[View]:
    """Yield the view for ever longer ends of its period, and at last for all of it.

    What is newest is in the last of its days, if that has enough for a page: then the others need not be read. Where
    roots are looked up first, there is little to read anyway.
    """
    low, high = view.period.bounds(now)
    window = DAY
    in_pieces = view.order == Sort("start") and not asks_roots(view.filters)
    while in_pieces and min(high, now) - window > max(low, 0) and window <= _LONGEST_WINDOW:
        yield replace(view, period=Period(start=min(high, now) - window, end=high))
        window *= 6
    yield view


def latest_traces(
    question: Question, dialect: ClickHouseDialect, condition: Condition, limit: int
) -> tuple[TraceRow, ...]:
    """Return the latest traces of which the condition is true. The condition is text of this package."""
    found = question.rows(
        f'SELECT t.trace_id, t.start, t."end" FROM {dialect.traces.sql} WHERE {condition.sql}'
        " ORDER BY t.start DESC, t.trace_id DESC LIMIT ?",
        (*dialect.traces.parameters, *condition.parameters, limit),
    )
    return _these_traces(question, found)


def _these_traces(question: Question, found: Sequence[tuple[Any, ...]]) -> tuple[TraceRow, ...]:
    """Return the traces of rows that begin with id, start and end."""
    if not found:
        return ()
    first, last = min(row[1] for row in found), max(max(row[1], row[2]) for row in found)
    return these_traces(question, [row[0] for row in found], days_between(first, last, beside=DAYS_BESIDE))


def these_traces(question: Question, ids: Sequence[str], days: Condition | None = None) -> tuple[TraceRow, ...]:
    """Return the traces with these ids, in this order; one that has gone meanwhile is left out.

    Args:
        question: What is asked with.
        ids: Which.
        days: A condition on the days of their rows; see `relation.these`.
    """
    found: dict[str, tuple[Any, ...]] = {}
    overrides: dict[str, int] = {}
    for start in range(0, len(ids), MAX_LITERAL):
        part = list(ids[start : start + MAX_LITERAL])
        table = these(part, question.version, days)
        found |= {row[0]: row for row in question.rows(f"SELECT {_TRACE_COLUMNS} FROM {table.sql}", table.parameters)}
        # Not merged yet, one may stand there twice.
        counted = question.rows(
            "SELECT trace_id, uniqExact(span_id, place, service, span_name, key) FROM neatlogs_overrides"
            " WHERE trace_id IN ? GROUP BY trace_id",
            (part,),
        )
        overrides |= dict(counted)
    return tuple(_trace_row(found[one], overrides.get(one, 0)) for one in ids if one in found)


def _trace_row(row: tuple[Any, ...], overrides: int) -> TraceRow:
    return TraceRow(
        trace_id=row[0],
        start=row[1],
        end=row[2],
        duration=row[3],
        spans=row[4],
        errors=row[5],
        tokens_input=row[6],
        tokens_output=row[7],
        tokens=row[8],
        root_received=row[9] != _ROOT_NOT_RECEIVED,
        roots=row[10],
        status=status_name(row[11]),
        service=row[12],
        name=row[13],
        workflow=row[14],
        session=row[15],
        end_user=row[16],
        source=row[17],
        metadata=clean_metadata(row[18]),
        services=tuple(sorted(read_set(row[19]))),
        tags=tuple(sorted(read_set(row[20]))),
        overrides=overrides,
    )


def clean_metadata(text: str | None) -> dict[str, Any] | None:
    """Return metadata as a sender wrote it, as the object that the embedded store would have kept."""
    return read_metadata(filterable_metadata(text))


def newer(question: Question, view: View, now: int, than: str) -> int:
    """See `TraceReader.newer`."""
    place = _place(question, view, than)
    if place is None:
        return 0
    before = narrowed(view, now, place, backwards=True)
    dialect = question.dialect(before, now)
    behind = order_of(view, dialect).after(*place, backwards=True)
    condition = conjunction([traces_of(before, now, dialect), behind])
    ((count,),) = question.rows(
        f"SELECT count() FROM (SELECT 1 FROM {dialect.traces.sql} WHERE {condition.sql} LIMIT ?)",
        (*dialect.traces.parameters, *condition.parameters, NEWER_LIMIT),
    )
    return int(count)


def neighbours(question: Question, view: View, trace_id: str, now: int) -> Neighbours:
    """See `TraceReader.neighbours`."""
    place = _place(question, view, trace_id)
    if place is None:
        return Neighbours(None, None)

    def beside(*, backwards: bool) -> str | None:
        looked_at = narrowed(view, now, place, backwards=backwards)
        dialect = question.dialect(looked_at, now)
        order = order_of(view, dialect)
        condition = conjunction([traces_of(looked_at, now, dialect), order.after(*place, backwards=backwards)])
        rows = question.rows(
            f"SELECT t.trace_id FROM {dialect.traces.sql} WHERE {condition.sql}"
            f" ORDER BY {order.by(backwards=backwards)} LIMIT 1",
            (*dialect.traces.parameters, *condition.parameters),
        )
        return rows[0][0] if rows else None

    return Neighbours(beside(backwards=True), beside(backwards=False))


def _place(question: Question, view: View, trace_id: str) -> tuple[Any, Any] | None:
    table = these([trace_id], question.version)
    order = order_of(view, ClickHouseDialect(table, question.version))
    rows = question.rows(f"SELECT {order.expression}, t.trace_id FROM {table.sql}", table.parameters)
    return (rows[0][0], rows[0][1]) if rows else None
