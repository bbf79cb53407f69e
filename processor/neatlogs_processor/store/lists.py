"""The lists: traces, sessions, end users; their sums, and what stands beside a row."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final

from neatlogs_processor.query.dialect import Condition, conjunction
from neatlogs_processor.query.errors import QueryError
from neatlogs_processor.query.fields import STATUSES
from neatlogs_processor.query.results import (
    EXCLUSION_LIMIT,
    Exclusion,
    Neighbours,
    Page,
    SessionRow,
    Summary,
    TraceRow,
    UserRow,
)
from neatlogs_processor.query.sqlite_dialect import SQLITE
from neatlogs_processor.query.view import ALL_TIME, Tab, View
from neatlogs_processor.store.selecting import (
    GROUP_COLUMN,
    is_reference,
    narrowed,
    order_of,
    read_cursor,
    select,
    traces_of,
    write_cursor,
)
from neatlogs_processor.store.session_rows import as_session_rows
from neatlogs_processor.store.text import read_set

# Every S608 below: names and conditions are constants of this package, values are bound.
# ruff: noqa: S608

_STATUS_NAMES: Final = {number: name for name, number in STATUSES.items()}
_TRACE_COLUMNS: Final = (
    't.id, t.trace_id, t.start, t."end", t.duration, t.spans, t.errors, t.tokens_input, t.tokens_output, t.tokens,'
    " t.head_rank, t.roots, t.status, t.service, t.name, t.workflow, t.session, t.end_user, t.source, t.metadata,"
    " t.services, t.tags"
)
_ROOT_NOT_RECEIVED: Final = 2
_SESSION_COLUMNS: Final = (
    f"t.session, count(*), sum(t.spans), sum(t.errors), {SQLITE.added_up('t.tokens')}, min(t.start),"
    f' max(t."end"), {SQLITE.lasted}'
)
_USER_COLUMNS: Final = (
    f"t.end_user, count(*), count(DISTINCT t.session), sum(t.spans), sum(t.errors), {SQLITE.added_up('t.tokens')},"
    f" {SQLITE.added_up(SQLITE.took)}, min(t.start), max(t.start)"
)
NEWER_LIMIT: Final = 1000
_MAX_NAME_CHARS: Final = 2000


def traces(connection: sqlite3.Connection, view: View, now: int) -> Page[TraceRow]:
    """See `TraceReader.traces`."""
    order, place = order_of(view), read_cursor(view)
    condition = traces_of(view, now)
    if place is not None:
        condition = conjunction([traces_of(narrowed(view, now, place), now), order.after(*place)])
    found = connection.execute(
        f"SELECT {_TRACE_COLUMNS}, {order.expression} FROM traces AS t WHERE {condition.sql}"
        f" ORDER BY {order.by()} LIMIT ?",
        (*condition.parameters, view.limit + 1),
    ).fetchall()
    cursor = None
    if len(found) > view.limit:
        found = found[: view.limit]
        cursor = write_cursor(view, found[-1][-1], found[-1][0])
    return Page(trace_rows(connection, [row[:-1] for row in found]), cursor)


def some_traces(
    connection: sqlite3.Connection, condition: Condition, order: str, limit: int, offset: int = 0
) -> tuple[TraceRow, ...]:
    """Return the traces of which the condition is true. Condition and order are text of this package."""
    found = connection.execute(
        f"SELECT {_TRACE_COLUMNS} FROM traces AS t WHERE {condition.sql} ORDER BY {order} LIMIT ? OFFSET ?",
        (*condition.parameters, limit, offset),
    ).fetchall()
    return trace_rows(connection, found)


def trace_rows(connection: sqlite3.Connection, found: Sequence[tuple[Any, ...]]) -> tuple[TraceRow, ...]:
    """Return rows of the table of traces as records."""
    ids = [row[0] for row in found]
    overrides = dict(
        connection.execute(
            f"SELECT trace, count(*) FROM overrides WHERE trace IN ({_marks(ids)}) GROUP BY trace", ids
        ).fetchall()
    )
    return tuple(
        TraceRow(
            trace_id=row[1].hex(),
            start=row[2],
            end=row[3],
            duration=row[4],
            spans=row[5],
            errors=row[6],
            tokens_input=row[7],
            tokens_output=row[8],
            tokens=row[9],
            root_received=row[10] != _ROOT_NOT_RECEIVED,
            roots=row[11],
            status=status_name(row[12]),
            service=row[13],
            name=row[14],
            workflow=row[15],
            session=row[16],
            end_user=row[17],
            source=row[18],
            metadata=read_metadata(row[19]),
            services=tuple(sorted(read_set(row[20]))),
            tags=tuple(sorted(read_set(row[21]))),
            overrides=overrides.get(row[0], 0),
        )
        for row in found
    )


def status_name(number: int) -> str:
    """Return the word for a status; a number that OTLP does not define counts as unset."""
    return _STATUS_NAMES.get(number, "unset")


def read_metadata(text: str | None) -> dict[str, Any] | None:
    """Return metadata as the store keeps it, as an object."""
    if text is None:
        return None
    value = json.loads(text)
    return value if isinstance(value, dict) else None


def sessions(connection: sqlite3.Connection, view: View, now: int) -> Page[SessionRow]:
    """See `TraceReader.sessions`."""
    found, cursor = _grouped(connection, view, now, _SESSION_COLUMNS)
    return Page(session_rows(connection, found, view, now), cursor)


def session_rows(
    connection: sqlite3.Connection, found: Sequence[tuple[Any, ...]], view: View, now: int
) -> tuple[SessionRow, ...]:
    """Return sums of sessions as records, with the end users and the workflows of their traces in the period."""
    names = [row[0] for row in found]
    low, high = view.period.bounds(now)
    members = connection.execute(
        f"SELECT DISTINCT session, end_user, workflow FROM traces WHERE session IN ({_marks(names)})"
        " AND start >= ? AND start < ?",
        (*names, low, high),
    )
    return as_session_rows(found, members)


def users(connection: sqlite3.Connection, view: View, now: int) -> Page[UserRow]:
    """See `TraceReader.users`."""
    found, cursor = _grouped(connection, view, now, _USER_COLUMNS)
    return Page(user_rows(connection, found), cursor)


def user_rows(connection: sqlite3.Connection, found: Iterable[tuple[Any, ...]]) -> tuple[UserRow, ...]:
    """Return sums of end users as records, with their latest metadata."""
    return tuple(
        UserRow(
            end_user=row[0],
            metadata=latest_metadata(connection, row[0]),
            traces=row[1],
            sessions=row[2],
            spans=row[3],
            errors=row[4],
            tokens=row[5],
            duration=row[6],
            first_seen=row[7],
            last_seen=row[8],
        )
        for row in found
    )


def latest_metadata(connection: sqlite3.Connection, end_user: str) -> dict[str, Any] | None:
    """Return the metadata of the end user's latest trace that has any."""
    row = connection.execute(
        "SELECT metadata FROM traces WHERE end_user = ? AND metadata IS NOT NULL ORDER BY start DESC, id DESC LIMIT 1",
        (end_user,),
    ).fetchone()
    return read_metadata(row[0]) if row else None


def sums_of(
    connection: sqlite3.Connection, tab: Tab, name: str, view: View, now: int, limit: int = 1
) -> list[tuple[Any, ...]]:
    """Return the sums of one session or one end user within the view's period, whatever its filters."""
    columns = _SESSION_COLUMNS if tab is Tab.SESSIONS else _USER_COLUMNS
    column = GROUP_COLUMN[tab]
    return connection.execute(
        f"SELECT {columns} FROM traces AS t WHERE {column} = ? AND t.start >= ? AND t.start < ? GROUP BY {column}"
        " LIMIT ?",
        (name, *view.period.bounds(now), limit),
    ).fetchall()


def sessions_of(
    connection: sqlite3.Connection, end_user: str, view: View, now: int, limit: int
) -> tuple[SessionRow, ...]:
    """Return the latest sessions that hold traces of an end user; only those traces are added up."""
    found = connection.execute(
        f"SELECT {_SESSION_COLUMNS} FROM traces AS t WHERE t.end_user = ? AND t.session IS NOT NULL"
        " AND t.start >= ? AND t.start < ? GROUP BY t.session ORDER BY min(t.start) DESC LIMIT ?",
        (end_user, *view.period.bounds(now), limit),
    ).fetchall()
    return session_rows(connection, found, view, now)


def _grouped(
    connection: sqlite3.Connection, view: View, now: int, columns: str
) -> tuple[list[tuple[Any, ...]], str | None]:
    order, place, selection = order_of(view), _read_place(connection, view), select(view, now)
    having = selection.having if place is None else conjunction([selection.having, order.after(*place)])
    found = connection.execute(
        f"SELECT {columns}, {order.expression} FROM traces AS t WHERE {selection.where.sql}"
        f" GROUP BY {order.tie} HAVING {having.sql} ORDER BY {order.by()} LIMIT ?",
        (*selection.where.parameters, *having.parameters, view.limit + 1),
    ).fetchall()
    cursor = None
    if len(found) > view.limit:
        found = found[: view.limit]
        cursor = _write_place(connection, view, found[-1][-1], found[-1][0])
    return [row[:-1] for row in found], cursor


def _write_place(connection: sqlite3.Connection, view: View, value: Any, name: str) -> str:
    """Return the cursor behind a row. Addresses are short: for a long id stands a trace that has it."""
    if len(json.dumps(name)) <= _MAX_NAME_CHARS:
        return write_cursor(view, value, name)
    column = GROUP_COLUMN[view.tab]
    (trace,) = connection.execute(f"SELECT max(t.id) FROM traces AS t WHERE {column} = ?", (name,)).fetchone()
    return write_cursor(view, [trace] if value == name else value, [trace])


def _read_place(connection: sqlite3.Connection, view: View) -> tuple[Any, Any] | None:
    place = read_cursor(view)
    if place is None or not is_reference(place[1]):
        return place
    column = GROUP_COLUMN[view.tab]
    row = connection.execute(f"SELECT {column} FROM traces AS t WHERE t.id = ?", tuple(place[1])).fetchone()
    if row is None or row[0] is None:
        raise QueryError("this page of the list is gone; begin with the first one", parameter="cursor")
    return (row[0] if is_reference(place[0]) else place[0]), row[0]


def summary(connection: sqlite3.Connection, view: View, now: int) -> Summary:
    """See `TraceReader.summary`."""
    condition = traces_of(view, now)
    row = connection.execute(
        "SELECT count(*), count(DISTINCT t.end_user), count(DISTINCT t.session), coalesce(sum(t.spans), 0),"
        f" coalesce(sum(t.errors), 0), {SQLITE.added_up('t.tokens')} FROM traces AS t WHERE {condition.sql}",
        condition.parameters,
    ).fetchone()
    return Summary(*row)


def newer(connection: sqlite3.Connection, view: View, now: int, than: str) -> int:
    """See `TraceReader.newer`."""
    place = _place(connection, view, than)
    if place is None:
        return 0
    before = traces_of(narrowed(view, now, place, backwards=True), now)
    condition = conjunction([before, order_of(view).after(*place, backwards=True)])
    row = connection.execute(
        f"SELECT count(*) FROM (SELECT 1 FROM traces AS t WHERE {condition.sql} LIMIT ?)",
        (*condition.parameters, NEWER_LIMIT),
    ).fetchone()
    return int(row[0])


def neighbours(connection: sqlite3.Connection, view: View, trace_id: str, now: int) -> Neighbours:
    """See `TraceReader.neighbours`."""
    place = _place(connection, view, trace_id)
    if place is None:
        return Neighbours(None, None)
    order = order_of(view)

    def beside(*, backwards: bool) -> str | None:
        selected = traces_of(narrowed(view, now, place, backwards=backwards), now)
        condition = conjunction([selected, order.after(*place, backwards=backwards)])
        row = connection.execute(
            f"SELECT t.trace_id FROM traces AS t WHERE {condition.sql}"
            f" ORDER BY {order.by(backwards=backwards)} LIMIT 1",
            condition.parameters,
        ).fetchone()
        return row[0].hex() if row else None

    return Neighbours(beside(backwards=True), beside(backwards=False))


def _place(connection: sqlite3.Connection, view: View, trace_id: str) -> tuple[Any, Any] | None:
    try:
        row = connection.execute(
            f"SELECT {order_of(view).expression}, t.id FROM traces AS t WHERE t.trace_id = ?",
            (bytes.fromhex(trace_id),),
        ).fetchone()
    except ValueError:
        return None
    return (row[0], row[1]) if row else None


def exclusions(connection: sqlite3.Connection, view: View, now: int) -> tuple[Exclusion, ...]:
    """See `TraceReader.exclusions`."""
    found = [Exclusion(index, _count(connection, view.without(index), now)) for index in range(len(view.filters))]
    if not view.period.is_everything:
        found.append(Exclusion(None, _count(connection, view.during(ALL_TIME), now)))
    return tuple(found)


def _count(connection: sqlite3.Connection, view: View, now: int) -> int:
    selection = select(view, now)
    group = GROUP_COLUMN.get(view.tab)
    grouping = f" GROUP BY {group} HAVING {selection.having.sql}" if group else ""
    row = connection.execute(
        f"SELECT count(*) FROM (SELECT 1 FROM traces AS t WHERE {selection.where.sql}{grouping} LIMIT ?)",
        (*(selection.parameters if group else selection.where.parameters), EXCLUSION_LIMIT),
    ).fetchone()
    return int(row[0])


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
