"""The lists over ClickHouse in which a row stands for many traces: sessions and end users; and the sum of all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from neatlogs_processor.query.clickhouse_dialect import ClickHouseDialect
from neatlogs_processor.query.dialect import Condition, conjunction
from neatlogs_processor.query.errors import QueryError
from neatlogs_processor.query.results import (
    EXCLUSION_LIMIT,
    Exclusion,
    Page,
    SessionRow,
    Summary,
    UserRow,
)
from neatlogs_processor.query.view import ALL_TIME, Tab, View
from neatlogs_processor.store.clickhouse.asking import Question, place_of
from neatlogs_processor.store.clickhouse.relation import DAYS_BESIDE, days_between, days_of, these
from neatlogs_processor.store.clickhouse.traces import clean_metadata
from neatlogs_processor.store.coverage import DAY
from neatlogs_processor.store.selecting import (
    GROUP_COLUMN,
    in_period,
    is_reference,
    order_of,
    select,
    traces_of,
    write_cursor,
)
from neatlogs_processor.store.session_rows import as_session_rows

# ruff: noqa: S608  # names and conditions are constants of this package, values are bound

_MAX_NAME_CHARS: Final = 2000


def sessions(question: Question, view: View, now: int) -> Page[SessionRow]:
    """See `TraceReader.sessions`."""
    dialect = _dialect_of_groups(question, view, now)
    found, cursor = _grouped(question, dialect, view, now, _session_columns(dialect))
    return Page(session_rows(question, found, view, now), cursor)


def session_rows(question: Question, found: Sequence[tuple[Any, ...]], view: View, now: int) -> tuple[SessionRow, ...]:
    """Return sums of sessions as records, with the end users and the workflows of their traces in the period."""
    if not found:
        return ()
    dialect = question.over(days_of(view, now))
    named = any_name("t.session", [row[0] for row in found])
    condition = conjunction([named, in_period(view, now)])
    members = question.rows(
        f"SELECT DISTINCT t.session, t.end_user, t.workflow FROM {dialect.traces.sql} WHERE {condition.sql}",
        (*dialect.traces.parameters, *condition.parameters),
    )
    return as_session_rows(found, [(session, user, workflow) for session, user, workflow in members])


def any_name(column: str, names: Sequence[str]) -> Condition:
    """Say that a column is one of these names, each bound by itself: together they may be longer than a parameter."""
    return Condition(f"{column} IN ({', '.join('?' * len(names))})", tuple(names))


def users(question: Question, view: View, now: int) -> Page[UserRow]:
    """See `TraceReader.users`."""
    dialect = _dialect_of_groups(question, view, now)
    found, cursor = _grouped(question, dialect, view, now, _user_columns(dialect))
    return Page(user_rows(question, found), cursor)


def user_rows(question: Question, found: Iterable[tuple[Any, ...]]) -> tuple[UserRow, ...]:
    """Return sums of end users as records, with their latest metadata."""
    rows = list(found)
    metadata: dict[str, str] = {}
    if rows:
        named = any_name("u.end_user", [row[0] for row in rows])
        metadata = dict(
            question.rows(
                "SELECT u.end_user, argMaxIfMerge(u.metadata) FROM neatlogs_users AS u"
                f" WHERE {named.sql} GROUP BY u.end_user",
                named.parameters,
            )
        )
    return tuple(
        UserRow(
            end_user=row[0],
            metadata=clean_metadata(metadata.get(row[0])),
            traces=row[1],
            sessions=row[2],
            spans=row[3],
            errors=row[4],
            tokens=row[5],
            duration=row[6],
            first_seen=row[7],
            last_seen=row[8],
        )
        for row in rows
    )


def sums_of(
    question: Question, dialect: ClickHouseDialect, tab: Tab, name: str, view: View, now: int
) -> list[tuple[Any, ...]]:
    """Return the sums of one session or one end user within the view's period, whatever its filters."""
    columns = _session_columns(dialect) if tab is Tab.SESSIONS else _user_columns(dialect)
    column = GROUP_COLUMN[tab]
    condition = conjunction([Condition(f"{column} = ?", (name,)), in_period(view, now)])
    return question.rows(
        f"SELECT {columns} FROM {dialect.traces.sql} WHERE {condition.sql} GROUP BY {column} LIMIT 1",
        (*dialect.traces.parameters, *condition.parameters),
    )


def sessions_of(
    question: Question, dialect: ClickHouseDialect, end_user: str, view: View, now: int, limit: int
) -> tuple[SessionRow, ...]:
    """Return the latest sessions that hold traces of an end user; only those traces are added up."""
    condition = conjunction([Condition("t.end_user = ? AND t.session IS NOT NULL", (end_user,)), in_period(view, now)])
    found = question.rows(
        f"SELECT {_session_columns(dialect)} FROM {dialect.traces.sql} WHERE {condition.sql}"
        " GROUP BY t.session ORDER BY min(t.start) DESC LIMIT ?",
        (*dialect.traces.parameters, *condition.parameters, limit),
    )
    return session_rows(question, found, view, now)


def days_of_session(question: Question, session: str) -> Condition:
    """Return the condition on the days in which a session has traces: those of its roots, and some beside them.

    Roots can be looked up by their session. Where none has arrived, or one states no start, the days are not known.
    """
    ((first, last, count),) = question.rows(
        "SELECT toInt64(min(c.day)), toInt64(max(c.day)), count() FROM neatlogs_roots AS c WHERE c.session = ?",
        (session,),
    )
    return days_between(first * DAY, last * DAY, beside=DAYS_BESIDE) if count and first else Condition("1")


def _session_columns(dialect: ClickHouseDialect) -> str:
    return (
        "assumeNotNull(t.session), count(), sum(t.spans), sum(t.errors),"
        f' {dialect.added_up("t.tokens")}, min(t.start), max(t."end"), {dialect.lasted}'
    )


def _user_columns(dialect: ClickHouseDialect) -> str:
    return (
        "assumeNotNull(t.end_user), count(), count(DISTINCT t.session), sum(t.spans), sum(t.errors),"
        f" {dialect.added_up('t.tokens')}, {dialect.added_up(dialect.took)}, min(t.start), max(t.start)"
    )


def _dialect_of_groups(question: Question, view: View, now: int) -> ClickHouseDialect:
    """Return the dialect over all traces that a row may be made of: what is asked of one of them leaves none out."""
    same_for_all = [filter_ for filter_ in view.filters if f"t.{filter_.field.spec.column}" == GROUP_COLUMN[view.tab]]
    return question.dialect(view.with_filters(same_for_all), now)


def _grouped(
    question: Question, dialect: ClickHouseDialect, view: View, now: int, columns: str
) -> tuple[list[tuple[Any, ...]], str | None]:
    order, place, selection = order_of(view, dialect), _read_place(question, view), select(view, now, dialect)
    having = selection.having if place is None else conjunction([selection.having, order.after(*place)])
    found = question.rows(
        f"SELECT {columns}, {order.expression} FROM {dialect.traces.sql} WHERE {selection.where.sql}"
        f" GROUP BY {order.tie} HAVING {having.sql} ORDER BY {order.by()} LIMIT ?",
        (*dialect.traces.parameters, *selection.where.parameters, *having.parameters, view.limit + 1),
    )
    cursor = None
    if len(found) > view.limit:
        found = found[: view.limit]
        cursor = _write_place(question, dialect, view, found[-1][-1], found[-1][0])
    return [row[:-1] for row in found], cursor


def _write_place(question: Question, dialect: ClickHouseDialect, view: View, value: Any, name: str) -> str:
    """Return the cursor behind a row. Addresses are short: for a long id stands a trace that has it."""
    if len(json.dumps(name)) <= _MAX_NAME_CHARS:
        return write_cursor(view, value, name)
    column = GROUP_COLUMN[view.tab]
    ((trace,),) = question.rows(
        f"SELECT max(t.trace_id) FROM {dialect.traces.sql} WHERE {column} = ?", (*dialect.traces.parameters, name)
    )
    return write_cursor(view, [trace] if value == name else value, [trace])


def _read_place(question: Question, view: View) -> tuple[Any, Any] | None:
    place = place_of(view)
    if place is None or not is_reference(place[1]):
        return place
    table = these([str(place[1][0])], question.version)
    rows = question.rows(f"SELECT {GROUP_COLUMN[view.tab]} FROM {table.sql}", table.parameters)
    if not rows or rows[0][0] is None:
        raise QueryError("this page of the list is gone; begin with the first one", parameter="cursor")
    return (rows[0][0] if is_reference(place[0]) else place[0]), rows[0][0]


def summary(question: Question, view: View, now: int) -> Summary:
    """See `TraceReader.summary`."""
    dialect = question.dialect(view, now)
    condition = traces_of(view, now, dialect)
    (row,) = question.rows(
        "SELECT count(), count(DISTINCT t.end_user), count(DISTINCT t.session), sum(t.spans), sum(t.errors),"
        f" {dialect.added_up('t.tokens')} FROM {dialect.traces.sql} WHERE {condition.sql}",
        (*dialect.traces.parameters, *condition.parameters),
    )
    return Summary(*row)


def exclusions(question: Question, view: View, now: int) -> tuple[Exclusion, ...]:
    """See `TraceReader.exclusions`."""
    found = [Exclusion(index, _count(question, view.without(index), now)) for index in range(len(view.filters))]
    if not view.period.is_everything:
        found.append(Exclusion(None, _count(question, view.during(ALL_TIME), now)))
    return tuple(found)


def _count(question: Question, view: View, now: int) -> int:
    group = GROUP_COLUMN.get(view.tab)
    dialect = _dialect_of_groups(question, view, now) if group else question.dialect(view, now)
    selection = select(view, now, dialect)
    grouping = f" GROUP BY {group} HAVING {selection.having.sql}" if group else ""
    bound = selection.parameters if group else selection.where.parameters
    ((count,),) = question.rows(
        f"SELECT count() FROM (SELECT 1 FROM {dialect.traces.sql} WHERE {selection.where.sql}{grouping} LIMIT ?)",
        (*dialect.traces.parameters, *bound, EXCLUSION_LIMIT),
    )
    return int(count)
