"""The lists: order, pages, sums, and what stands beside them."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neatlogs_processor.errors import ConfigError
from neatlogs_processor.query.errors import QueryError
from neatlogs_processor.query.fields import FIELDS, Arity, Field, Operator
from neatlogs_processor.query.filters import Filter, Scalar
from neatlogs_processor.query.results import Exclusion, Neighbours, Summary
from neatlogs_processor.query.text import parse
from neatlogs_processor.query.view import ALL_TIME, SORTS, Period, Sort, Tab, View
from neatlogs_processor.store import lists
from neatlogs_processor.store.files import open_reader
from neatlogs_processor.store.reader import SqliteReader
from support.stored import DAY, MINUTE, NOW, SECOND, Stored, store, write

MANY = [
    Stored(
        number,
        end_user=f"user {number % 7}",
        session=f"session {number % 13}",
        tokens=number % 3,
        spans=1 + number % 4,
        errors=number % 2,
        duration=(number % 5) * SECOND,
        ago=(number % 11) * MINUTE,
    )
    for number in range(60)
]
ORDERS = [(tab, Sort(key, descending)) for tab in SORTS for key in SORTS[tab] for descending in (True, False)]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteReader]:
    """A store with sixty traces, many of them alike."""
    with store(tmp_path_factory.mktemp("store") / "traces.db", MANY) as reader:
        yield reader


def rows_of(reader: SqliteReader, view: View) -> tuple[list[object], str | None]:
    """Return one page of the view's list."""
    lists = {Tab.TRACES: reader.traces, Tab.SESSIONS: reader.sessions, Tab.USERS: reader.users}
    page = lists[view.tab](view, now=NOW)
    return list(page.rows), page.next_cursor


@pytest.mark.parametrize(("tab", "sort"), ORDERS, ids=[f"{tab.value} {sort.text}" for tab, sort in ORDERS])
def test_pages_put_together_are_the_list(many: SqliteReader, tab: Tab, sort: Sort) -> None:
    """In every order, with many rows alike, no row is missing and none stands on two pages."""
    whole, rest = rows_of(many, View(tab, sort=sort, limit=500))
    assert rest is None
    values = [getattr(row, sort.key) for row in whole]
    assert values == sorted(values, reverse=sort.descending)
    view, together = View(tab, sort=sort, limit=4), []
    while True:
        rows, cursor = rows_of(many, view)
        together += rows
        if cursor is None:
            break
        assert len(rows) == 4
        view = view.from_cursor(cursor)
    assert together == whole


def test_a_page_does_not_move_when_traces_arrive(tmp_path: Path) -> None:
    """Rows behind a cursor stay the same, whatever comes in before them."""
    path = tmp_path / "traces.db"
    with store(path, [Stored(number, ago=(number + 10) * MINUTE) for number in range(6)]) as reader:
        first = reader.traces(View(limit=3), now=NOW)
        second = View(limit=3).from_cursor(first.next_cursor)
        before = reader.traces(second, now=NOW)
        write(path, [Stored(number, ago=MINUTE) for number in range(100, 105)])
        assert reader.traces(second, now=NOW) == before
        assert reader.newer(View(), now=NOW, than=first.rows[0].trace_id) == 5


def broken(*said: object) -> str:
    """Return a cursor that says this."""
    return base64.urlsafe_b64encode(json.dumps(said).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "abc",
        "a",
        "_" * 99,
        broken(),
        broken("users", "-start", 1, 1),
        broken("traces", "start", 1, 1),
        broken("traces", "-start", None, 1),
        broken("traces", "-start", 2**64, 1),
        broken("traces", "-start", [1], {}),
        broken("traces", "-start", "\ud800", 1),
    ],
)
def test_a_cursor_of_another_list_is_refused(many: SqliteReader, cursor: str) -> None:
    """What is no cursor of this list in this order is an error that names it."""
    with pytest.raises(QueryError) as caught:
        many.traces(View(cursor=cursor), now=NOW)
    assert caught.value.parameter == "cursor"


def test_sums_are_those_of_the_period(tmp_path: Path) -> None:
    """Sessions and end users add up their traces within the period, and the summary all that is selected."""
    traces = [
        Stored(1, "ali", session="s", tokens=5, spans=3, errors=1, ago=MINUTE, duration=2 * SECOND, workflow="chat"),
        Stored(2, "ali", session="s", tokens=7, ago=3 * MINUTE, duration=SECOND, workflow="mail"),
        Stored(3, "ali", session="t", tokens=100, ago=9 * DAY),
        Stored(4, "bob", session="s", ago=2 * MINUTE),
        Stored(5, None, session=None),
    ]
    with store(tmp_path / "traces.db", traces) as reader:
        (session,) = reader.sessions(View(Tab.SESSIONS), now=NOW).rows
        assert (session.session, session.traces, session.spans, session.errors, session.tokens) == ("s", 3, 5, 1, 12)
        assert (session.start, session.duration) == (NOW - 3 * MINUTE, 2 * MINUTE + 2 * SECOND)
        assert session.end_users == ("ali", "bob")
        assert session.workflows == ("chat", "mail")
        ali, bob = reader.users(View(Tab.USERS), now=NOW).rows
        assert (ali.end_user, ali.traces, ali.sessions, ali.tokens, ali.duration) == ("ali", 2, 1, 12, 3 * SECOND)
        assert (ali.first_seen, ali.last_seen) == (NOW - 3 * MINUTE, NOW - MINUTE)
        assert bob.traces == 1
        assert reader.summary(View(), now=NOW) == Summary(4, 2, 1, 6, 1, 12)
        assert reader.summary(View(filters=parse("end_user is x")), now=NOW) == Summary(0, 0, 0, 0, 0, 0)


def test_an_absolute_period_has_its_beginning_and_not_its_end(tmp_path: Path) -> None:
    """From is included, to is not."""
    with store(tmp_path / "traces.db", [Stored(1, ago=10), Stored(2, ago=5), Stored(3, ago=0)]) as reader:
        page = reader.traces(View(period=Period(start=NOW - 10, end=NOW)), now=NOW)
        assert [row.start for row in page.rows] == [NOW - 5, NOW - 10]


def test_what_excluded_everything_is_known(tmp_path: Path) -> None:
    """For each filter, and for the period, it is counted what the list would hold without it."""
    traces = [Stored(1, "ali"), Stored(2, "ali", ago=9 * DAY, tags=("x",)), Stored(3, "bob", ago=9 * DAY)]
    with store(tmp_path / "traces.db", traces) as reader:
        view = View(filters=parse("end_user is ali and tag is x"))
        assert reader.exclusions(view, now=NOW) == (Exclusion(0, 0), Exclusion(1, 1), Exclusion(None, 1))
        users = view.on(Tab.USERS)
        assert reader.exclusions(users, now=NOW) == (Exclusion(0, 0), Exclusion(1, 1), Exclusion(None, 1))
        assert reader.exclusions(View(period=ALL_TIME), now=NOW) == ()


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([sort for tab, sort in ORDERS if tab is Tab.TRACES]), st.integers(1, 6))
def test_neighbours_lead_through_the_list(many: SqliteReader, sort: Sort, user: int) -> None:
    """From each trace, next and previous lead to those beside it in the filtered list, in its order."""
    view = View(filters=parse(f"end_user is user {user}"), sort=sort)
    ids = [row.trace_id for row in many.traces(view, now=NOW).rows]
    for before, here, after in zip([None, *ids], ids, [*ids[1:], None], strict=False):
        assert many.neighbours(view, here, now=NOW) == Neighbours(before, after)
    assert many.neighbours(view, "ab" * 16, now=NOW) == Neighbours(None, None)
    assert many.neighbours(view, "xyz", now=NOW) == Neighbours(None, None)


@pytest.mark.parametrize("tab", [Tab.TRACES, Tab.SESSIONS, Tab.USERS])
def test_lists_never_read_the_spans(tmp_path: Path, tab: Tab) -> None:
    """Whatever the filter and the order, the rollup answers; the table of spans is not touched."""
    path = tmp_path / "traces.db"
    write(path, [Stored(1, "ali", session="s")])
    connection = open_reader(path)
    asked: list[str] = []
    connection.set_trace_callback(asked.append)
    for name, spec in FIELDS.items():
        for operator in spec.operators:
            view = View(tab, (an_example(Field(name, "plan" if name == "metadata" else ""), operator),))
            {Tab.TRACES: lists.traces, Tab.SESSIONS: lists.sessions, Tab.USERS: lists.users}[tab](connection, view, NOW)
    connection.set_trace_callback(None)
    selects = [sql for sql in asked if sql.startswith("SELECT")]
    assert len(selects) > 100
    for sql in selects:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
        assert not any("spans" in step.split() for step in plan), plan
    connection.close()


def an_example(field: Field, operator: Operator) -> Filter:
    """Return some filter of this field and operator."""
    count = {Arity.NONE: 0, Arity.ONE: 1, Arity.MANY: 2}[operator.arity]
    fitting = ("ok", 5, Scalar("5"))
    value = next(value for value in fitting if Filter.problem_of(field, operator, value) is None)
    return Filter(field, operator, (value,) * count)


@pytest.mark.parametrize(
    ("view", "index"),
    [
        (View(), "traces_by_start"),
        (View(filters=parse("end_user is ali")), "traces_by_end_user"),
        (View(filters=parse("session is s")), "traces_by_session"),
        (View(filters=parse("trace_id is " + "ab" * 16)), "sqlite_autoindex_traces_1"),
        (View(Tab.USERS), "traces_by_start"),
        (View(Tab.SESSIONS), "traces_by_start"),
    ],
    ids=["newest", "end user", "session", "trace id", "users", "sessions"],
)
def test_the_usual_questions_use_an_index(tmp_path: Path, view: View, index: str) -> None:
    """A list reads what its period holds, and a filter by an exact id what that holds, not all the others."""
    path = tmp_path / "traces.db"
    write(path, MANY)
    connection = open_reader(path)
    asked: list[str] = []
    connection.set_trace_callback(asked.append)
    {Tab.TRACES: lists.traces, Tab.SESSIONS: lists.sessions, Tab.USERS: lists.users}[view.tab](connection, view, NOW)
    connection.set_trace_callback(None)
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {asked[0]}")]
    connection.close()
    assert any(step.startswith("SEARCH t ") and index in step for step in plan), plan


def test_a_store_that_is_not_there_says_so(tmp_path: Path) -> None:
    """A reader may be made before its store; asking tells what to do."""
    reader = SqliteReader(tmp_path / "none.db")
    with pytest.raises(ConfigError, match="no store"):
        reader.traces(View(), now=NOW)
    write(tmp_path / "none.db", [Stored(1)])
    assert len(reader.traces(View(), now=NOW).rows) == 1
    reader.close()
