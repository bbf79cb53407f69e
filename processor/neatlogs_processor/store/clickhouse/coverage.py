"""Who sets the end user, over ClickHouse: by service, by day, by handler; and where overrides are ignored."""

from __future__ import annotations

from typing import Any, Final

from neatlogs_processor.query.clickhouse_dialect import ClickHouseDialect
from neatlogs_processor.query.dialect import Condition, conjunction
from neatlogs_processor.query.results import Coverage, CoverageRow, HandlerRow, OverridePlaceRow
from neatlogs_processor.query.view import View
from neatlogs_processor.store.clickhouse.asking import Question
from neatlogs_processor.store.clickhouse.relation import days_of
from neatlogs_processor.store.coverage import DAY, MAX_ROWS, day_name
from neatlogs_processor.store.selecting import traces_of

# ruff: noqa: S608  # names and conditions are constants of this package, values are bound

_SUMS: Final = (
    "count(), countIf(t.head_rank < 2 AND t.end_user IS NOT NULL), countIf(t.head_rank < 2 AND t.end_user IS NULL),"
    " countIf(t.head_rank = 2)"
)


def coverage(question: Question, view: View, now: int) -> Coverage:
    """See `TraceReader.coverage`."""
    dialect = question.dialect(view, now)
    condition = traces_of(view, now, dialect)

    def run(columns: str, rest: str) -> list[tuple[Any, ...]]:
        return question.rows(
            f"SELECT {columns} FROM {dialect.traces.sql} WHERE {condition.sql} {rest}",
            (*dialect.traces.parameters, *condition.parameters),
        )

    (total,) = run(_SUMS, "")
    services = run(f"t.service, {_SUMS}", f"GROUP BY t.service ORDER BY count() DESC, t.service LIMIT {MAX_ROWS}")
    days = run(f"intDiv(t.start, {DAY}) AS number, {_SUMS}", f"GROUP BY number ORDER BY number DESC LIMIT {MAX_ROWS}")
    handlers = run(
        "t.service, t.name, count(), argMax(t.trace_id, (t.start, t.trace_id))",
        "AND t.head_rank < 2 AND t.end_user IS NULL"
        f" GROUP BY t.service, t.name ORDER BY count() DESC, t.service, t.name LIMIT {MAX_ROWS}",
    )
    return Coverage(
        total=CoverageRow("", *total),
        services=tuple(CoverageRow(*row) for row in services),
        days=tuple(CoverageRow(day_name(number), *sums) for number, *sums in reversed(days)),
        handlers=tuple(HandlerRow(service, name or "", *rest) for service, name, *rest in handlers),
        overrides=_overrides(question, dialect, view, now),
    )


def _overrides(question: Question, of_view: ClickHouseDialect, view: View, now: int) -> tuple[OverridePlaceRow, ...]:
    with_any = Condition("r.trace_id IN (SELECT trace_id FROM neatlogs_overrides)")
    dialect = question.over(conjunction([days_of(view, now), with_any]))
    condition = traces_of(view, now, of_view)
    columns = "o.service AS service, o.span_name AS span_name, o.place AS place, o.key AS key"
    # Not merged yet, one may stand there twice.
    once = "SELECT * FROM neatlogs_overrides LIMIT 1 BY trace_id, span_id, place, service, span_name, key"
    selected = (
        f"SELECT {columns}, s.trace_id AS trace_id, s.start AS start FROM ({once}) AS o"
        f" INNER JOIN (SELECT t.trace_id AS trace_id, t.start AS start FROM {dialect.traces.sql}"
        f" WHERE {condition.sql}) AS s ON s.trace_id = o.trace_id"
    )
    parameters: tuple[Any, ...] = (*dialect.traces.parameters, *condition.parameters)
    if not view.filters:
        # An instrumentation scope belongs to no trace, and so to no filter.
        selected += (
            f" UNION ALL SELECT {columns}, '' AS trace_id, o.received AS start FROM (SELECT *"
            " FROM neatlogs_overrides WHERE trace_id = '' ORDER BY received DESC"
            " LIMIT 1 BY span_id, place, service, span_name, key) AS o"
            " WHERE o.received >= ? AND o.received < ?"
        )
        parameters = (*parameters, *view.period.bounds(now))
    found = question.rows(
        "SELECT service, span_name, place, key, count(), argMax(trace_id, (start, trace_id))"
        f" FROM ({selected}) GROUP BY service, span_name, place, key"
        f" ORDER BY count() DESC, service, span_name, place, key LIMIT {MAX_ROWS}",
        parameters,
    )
    return tuple(OverridePlaceRow(*row) for row in found)
