"""Traces as rows: what the rollup keeps in parts, put together, with the columns that the embedded store has too.

`neatlogs_traces` has a row for each day of a trace and several for one day until they are merged. A question reads the
days of its period and a few beside them, so that a trace that goes on over midnight is one, and not the parts of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from neatlogs_processor.query.clickhouse_dialect import ClickHouseDialect, fold
from neatlogs_processor.query.conditions import of_trace
from neatlogs_processor.query.dialect import Condition, conjunction
from neatlogs_processor.query.fields import METADATA
from neatlogs_processor.query.filters import Filter
from neatlogs_processor.query.view import View

# ruff: noqa: S608  # names and conditions are constants of this package, values are bound

DAYS_BESIDE: Final = 2
"""How many days before and after its period a question reads. A trace that pauses for longer is seen as if it began
after the pause, or ended before it; the row of a list, and the trace itself, are whole all the same."""

_DAY: Final = 86_400 * 10**9
_LAST_DAY: Final = 65_535
"""ClickHouse's last day, 2149-06-06; later times are of that day."""

_NONE: Final = 2**63 - 1
_FOLDED: Final = ("name", "workflow", "session", "end_user")
_ROOTS: Final = frozenset({"end_user", METADATA, "name"})
"""Fields that only a root says anything about, and that `neatlogs_roots` has."""

# Every aggregate is one that takes the same span twice without counting it twice. Of these, a question computes only
# those that it names.
_PARTS: Final = (
    "SELECT r.trace_id AS trace_id, min(r.start) AS a_start, max(r.end) AS a_end, min(r.head) AS a_head,"
    " uniqExactMerge(r.spans) AS a_spans, uniqExactIfMerge(r.errors) AS a_errors,"
    " uniqExactIfMerge(r.roots) AS a_roots, uniqExactIfMerge(r.entries) AS a_entries,"
    " groupUniqArrayIfMerge(r.tokens) AS a_tokens, groupUniqArrayArray(r.services) AS a_services,"
    " argMinMerge(r.status) AS a_status, argMinMerge(r.service) AS a_service, argMinMerge(r.name) AS a_name,"
    " argMinMerge(r.workflow) AS a_workflow, argMinMerge(r.session) AS a_session,"
    " argMinMerge(r.end_user) AS a_end_user, argMinMerge(r.source) AS a_source,"
    " argMinMerge(r.metadata) AS a_metadata, argMinMerge(r.tags) AS a_tags"
    " FROM neatlogs_traces AS r WHERE {where} GROUP BY r.trace_id"
)
_RANK: Final = "toInt64(bitShiftRight(p.a_head, 126))"
_SERVICES: Final = (
    "arraySort(arrayDistinct(arrayFilter(s -> s <> '', arrayMap(s -> replaceAll(s, '\\n', ' '), p.a_services))))"
)


def _sum_of(place: int) -> str:
    return f"toInt64(least(arraySum(u -> toUInt128(u.{place}), p.a_tokens), toUInt128({_NONE})))"


_COLUMNS: Final = {
    "trace_id": "p.trace_id",
    "start": f"if(p.a_start = {_NONE}, 0, p.a_start)",
    '"end"': "p.a_end",
    "duration": f"if(p.a_start = {_NONE} OR p.a_start = 0, 0, greatest(p.a_end - p.a_start, 0))",
    "spans": "toInt64(p.a_spans)",
    "errors": "toInt64(p.a_errors)",
    "tokens_input": _sum_of(2),
    "tokens_output": _sum_of(3),
    "tokens": _sum_of(4),
    "head_rank": _RANK,
    "roots": f"toInt64(multiIf({_RANK} = 0, p.a_entries, {_RANK} = 1, p.a_roots, 0))",
    "status": "p.a_status",
    "service": "p.a_service",
    "name": f"if({_RANK} = 2, NULL, p.a_name)",
    "workflow": "nullIf(p.a_workflow, '')",
    "session": "nullIf(p.a_session, '')",
    "end_user": "nullIf(p.a_end_user, '')",
    "source": "nullIf(p.a_source, '')",
    "metadata": "nullIf(p.a_metadata, '')",
    "services": f"if(empty(p.a_services), '', concat('\\n', arrayStringConcat({_SERVICES}, '\\n'), '\\n'))",
    "tags": "p.a_tags",
}


def traces(where: Condition, version: tuple[int, ...]) -> Condition:
    """Return the traces, under the name `t`, of which the rollup's rows pass a condition.

    Args:
        where: A condition on `neatlogs_traces AS r`, that all rows of a trace pass or none.
        version: Of the server.
    """
    columns = dict(_COLUMNS)
    columns |= {f"{name}_folded": fold(_COLUMNS[name], version) for name in _FOLDED}
    columns |= {f"{name}_folded": fold(f"toString({_COLUMNS[name]})", version) for name in ("services", "tags")}
    listed = ", ".join(f"{expression} AS {name}" for name, expression in columns.items())
    return Condition(f"(SELECT {listed} FROM ({_PARTS.format(where=where.sql)}) AS p) AS t", where.parameters)


def these(ids: Sequence[str], version: tuple[int, ...], days: Condition | None = None) -> Condition:
    """Return the traces with these ids, whole.

    Args:
        ids: Which.
        version: Of the server.
        days: A condition on `r.day` that all their rows pass, if one is known: it saves looking into every day.
    """
    named = Condition("r.trace_id IN ?", (list(ids),))
    return traces(named if days is None else conjunction([days, named]), version)


def asks_roots(filters: Iterable[Filter]) -> bool:
    """Tell whether one of the filters asks for something that only a root says."""
    return any(_asks_roots(filter_) for filter_ in filters)


def _asks_roots(filter_: Filter) -> bool:
    return filter_.field.name in _ROOTS and filter_.operator.positive is None


def candidates(filters: Sequence[Filter], view: View, now: int, version: tuple[int, ...]) -> Condition | None:
    """Return the query for the ids of traces that may pass these filters: those with a root that does.

    `None` where the roots cannot tell, because no filter asks for something that only a root says.
    """
    if not asks_roots(filters):
        return None
    dialect = ClickHouseDialect(Condition("neatlogs_roots"), version)
    asked = [of_trace(filter_, dialect) for filter_ in filters if _asks_roots(filter_)]
    columns = {name: f"c.{name}" for name in _ROOTS}
    columns |= {f"{name}_folded": fold(f"c.{name}", version) for name in ("end_user", "name")}
    listed = ", ".join(f"{expression} AS {name}" for name, expression in columns.items())
    days = days_of(view, now, "c.day")
    found = conjunction(asked)
    return Condition(
        f"SELECT DISTINCT t.trace_id FROM (SELECT c.trace_id AS trace_id, {listed} FROM neatlogs_roots AS c"
        f" WHERE {days.sql}) AS t WHERE {found.sql}",
        (*days.parameters, *found.parameters),
    )


def days_of(view: View, now: int, column: str = "r.day") -> Condition:
    """Return the condition that rows are of the view's period, or of the days beside it."""
    low, high = view.period.bounds(now)
    # What states no start is of the beginning of time, unless a later day knows better.
    return days_between(low, high, column, beside=DAYS_BESIDE) if low else Condition("1")


def days_between(low: int, high: int, column: str = "r.day", *, beside: int = 0) -> Condition:
    """Return the condition that rows are of the days from one time to another, and of so many beside them."""
    first, last = (min(max(time, 0) // _DAY, _LAST_DAY) for time in (low, high))
    first, last = max(first - beside, 0), min(last + beside, _LAST_DAY)
    if not first and last == _LAST_DAY:
        return Condition("1")
    # Spans that state no start are of the first day there is.
    return Condition(
        f"(({column} >= toDate(?) AND {column} <= toDate(?)) OR {column} = toDate(0))",
        (first, last),
    )
