"""The same traces in both engines, and everything that a page may ask of them, so that the answers can be compared."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clickhouse_connect.driver.client import Client

from neatlogs_processor.core.policy import EndUserPolicy, Override
from neatlogs_processor.query.conditions import of_trace
from neatlogs_processor.query.dialect import Condition, Dialect
from neatlogs_processor.query.fields import FIELDS, METADATA, Field
from neatlogs_processor.query.filters import Filter
from neatlogs_processor.query.reader import TraceReader
from neatlogs_processor.query.results import Page, SpanDetail, TraceDetail
from neatlogs_processor.query.sqlite_dialect import SQLITE
from neatlogs_processor.query.view import SORTS, Sort, Tab, View
from neatlogs_processor.store.clickhouse.asking import Question
from neatlogs_processor.store.clickhouse.reader import ClickHouseReader
from neatlogs_processor.store.clickhouse.schema import ROLLUPS, TABLES, statements
from neatlogs_processor.store.clickhouse.spans import COLUMNS, TYPES, read_spans
from neatlogs_processor.store.files import open_reader, open_writer
from neatlogs_processor.store.reader import SqliteReader
from neatlogs_processor.store.rows import read_request
from neatlogs_processor.store.writing import Writing
from support.clickhouse_server import ClickHouseServer
from support.stored import NOW, Stored

POLICY = EndUserPolicy()
_AT_ONCE = 25
_OPENED = 3
_DATABASES = itertools.count(1)


@dataclass(frozen=True)
class TwoEngines:
    """Readers over the same traces.

    Attributes:
        sqlite: Over a store's file.
        clickhouse: Over a database.
        path: The store's file.
        database: The database.
    """

    sqlite: TraceReader
    clickhouse: TraceReader
    path: Path
    database: Database

    def selected(self, filters: Sequence[Filter]) -> tuple[list[set[str]], list[set[str]]]:
        """Return which traces each filter selects, by SQLite and by ClickHouse: many filters in one statement."""
        question = Question(self.database.client, 60.0)
        found: tuple[list[set[str]], list[set[str]]] = ([], [])
        with contextlib.closing(open_reader(self.path)) as connection:
            for start in range(0, len(filters), _AT_ONCE):
                asked = filters[start : start + _AT_ONCE]
                sql, bound = _columns(asked, SQLITE)
                found[0].extend(_by_column(connection.execute(f"SELECT lower(hex(t.trace_id)), {sql}", bound), asked))
                sql, bound = _columns(asked, question.over(Condition("1")))
                found[1].extend(_by_column(question.rows(f"SELECT t.trace_id, {sql}", bound), asked))
        return found


def _columns(filters: Sequence[Filter], dialect: Dialect) -> tuple[str, tuple[Any, ...]]:
    asked = [of_trace(filter_, dialect) for filter_ in filters]
    sql = ", ".join(f"coalesce({condition.sql}, 0)" for condition in asked)
    bound = tuple(value for condition in asked for value in condition.parameters)
    return f"{sql} FROM {dialect.traces.sql}", (*bound, *dialect.traces.parameters)


def _by_column(rows: Iterable[Sequence[Any]], filters: Sequence[Filter]) -> list[set[str]]:
    found = list(rows)
    return [{row[0] for row in found if row[column + 1]} for column in range(len(filters))]


class Database:
    """A database with the store's tables, that is filled anew for each case."""

    def __init__(self, server: ClickHouseServer) -> None:
        self.name = f"case_{next(_DATABASES)}"
        self.server = server
        with contextlib.closing(server.client()) as client:
            client.command(f"CREATE DATABASE {self.name}")
        self.client: Client = server.client(self.name)
        for statement in statements():
            self.client.command(statement)
        self.reader = ClickHouseReader(lambda: server.client(self.name))

    def fill(
        self, requests: Iterable[bytes], overrides: Iterable[Override] = (), policy: EndUserPolicy = POLICY
    ) -> None:
        """Empty it, and write these requests into it."""
        for table in (*TABLES, *ROLLUPS):
            self.client.command(f"TRUNCATE TABLE {table}")
        self.add(requests, overrides, policy)

    def add(
        self, requests: Iterable[bytes], overrides: Iterable[Override] = (), policy: EndUserPolicy = POLICY
    ) -> None:
        """Write these requests into it, as one insert."""
        rows = [row for body in requests for row in read_spans(body, policy).rows.values()]
        if rows:
            self.client.insert("otel_traces", rows, column_names=COLUMNS, column_type_names=TYPES)
        ignored = [
            (one.trace_id.hex(), one.span_id.hex(), one.place.value, one.service, one.span_name, one.key, NOW)
            for one in overrides
        ]
        if ignored:
            self.client.insert("neatlogs_overrides", ignored)

    def close(self) -> None:
        """Remove it."""
        self.reader.close()
        self.client.command(f"DROP DATABASE {self.name}")
        self.client.close()


@contextlib.contextmanager
def two_engines(
    database: Database,
    traces: Sequence[Stored] | Sequence[bytes],
    overrides: Sequence[Override] = (),
    policy: EndUserPolicy = POLICY,
) -> Iterator[TwoEngines]:
    """Write traces into both engines, and read them from both."""
    requests = [trace.request() if isinstance(trace, Stored) else trace for trace in traces]
    database.fill(requests, overrides, policy)
    with TemporaryDirectory() as directory:
        path = Path(directory, "traces.db")
        with contextlib.closing(open_writer(path)) as connection:
            batches = [(read_request(body, policy), ()) for body in requests]
            Writing(connection).write([*batches, (read_request(b"", policy), tuple(overrides))], NOW)
        with contextlib.closing(SqliteReader(path)) as sqlite:
            yield TwoEngines(sqlite, database.reader, path, database)


def page_of(reader: TraceReader, view: View) -> Page[Any]:
    """Return one page of the view's list."""
    if view.tab is Tab.TRACES:
        return reader.traces(view, now=NOW)
    return reader.sessions(view, now=NOW) if view.tab is Tab.SESSIONS else reader.users(view, now=NOW)


def whole_list(reader: TraceReader, view: View) -> list[Any]:
    """Return all rows of the view's list, page by page."""
    rows: list[Any] = []
    while True:
        page = page_of(reader, view)
        rows += page.rows
        if page.next_cursor is None:
            return rows
        view = view.from_cursor(page.next_cursor)


def lists_of(reader: TraceReader, view: View) -> dict[str, Any]:
    """Return what the lists and sums say to the view's filters and period.

    Rows that are alike in the order of a list stand in the order of their names: which of them comes first is each
    engine's own.
    """
    said: dict[str, Any] = {"summary": reader.summary(view, now=NOW)}
    for tab in (Tab.TRACES, Tab.SESSIONS, Tab.USERS):
        of_tab = replace(view, tab=tab, sort=None, cursor=None)
        said[tab.value] = sorted(whole_list(reader, of_tab), key=name_of)
    return said


def name_of(row: Any) -> str:
    """What a row of a list is called."""
    return str(next(getattr(row, name) for name in ("trace_id", "session", "end_user") if hasattr(row, name)))


def orders_of(reader: TraceReader, view: View) -> dict[str, Any]:
    """Return the values that every list is sorted by, in every order, as they stand on pages of a few rows."""
    return {
        f"{tab.value} {sort.text}": [
            getattr(row, sort.key) for row in whole_list(reader, replace(view, tab=tab, sort=sort, cursor=None))
        ]
        for tab in (Tab.TRACES, Tab.SESSIONS, Tab.USERS)
        for sort in (Sort(key, descending) for key in SORTS[tab] for descending in (True, False))
    }


def everything_else(reader: TraceReader, view: View, traces: Iterable[str]) -> dict[str, Any]:
    """Return what a page shows beside its lists: charts, coverage, autocompletion, and everything about one row."""
    users = sorted(row.end_user for row in whole_list(reader, View(Tab.USERS, period=view.period)))[:_OPENED]
    sessions = sorted(row.session for row in whole_list(reader, View(Tab.SESSIONS, period=view.period)))[:_OPENED]
    return {
        "histogram": reader.histogram(view, now=NOW, buckets=7),
        "coverage": reader.coverage(view, now=NOW),
        "values": {
            name: reader.values(Field(name, "plan" if name == METADATA else ""), "A", view, now=NOW, limit=50)
            for name in FIELDS
        },
        "keys": reader.metadata_keys("", view, now=NOW, limit=50),
        "exclusions": reader.exclusions(view, now=NOW),
        "sparklines": reader.sparklines(users, view, now=NOW, buckets=4),
        "newer": {trace: reader.newer(View(period=view.period), now=NOW, than=trace) for trace in traces},
        "neighbours": {trace: reader.neighbours(View(period=view.period), trace, now=NOW) for trace in traces},
        "whole": {trace: as_text(reader.trace(trace)) for trace in traces},
        "each user": {user: reader.user(user, view.on(Tab.USERS), now=NOW) for user in users},
        "each session": {session: reader.session(session) for session in sessions},
        "nobody": (reader.user("nobody", view.on(Tab.USERS), now=NOW), reader.session("none"), reader.trace("00" * 16)),
    }


def as_text(detail: TraceDetail | None) -> TraceDetail | None:
    """Return a trace with its attributes as text, as the Collector's table keeps them, and nothing that it does not."""
    if detail is None:
        return None
    return replace(detail, spans=tuple(_as_text(span) for span in detail.spans))


def _as_text(span: SpanDetail) -> SpanDetail:
    return replace(
        span,
        attributes=_texts(span.attributes),
        resource=_texts(span.resource),
        events=tuple(replace(event, attributes=_texts(event.attributes)) for event in span.events),
        links=tuple(replace(link, attributes=_texts(link.attributes)) for link in span.links),
        dropped=0,
    )


def _texts(attributes: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value if isinstance(value, str) else json.dumps(_whole(value), ensure_ascii=False)
        for key, value in attributes.items()
    }


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value
