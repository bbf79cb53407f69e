"""What SQLite plans for the questions of the page: nothing is looked through that grows with the spans in the store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neatlogs_processor.query.fields import Field
from neatlogs_processor.query.text import parse
from neatlogs_processor.query.view import Sort, Tab, View
from neatlogs_processor.store import coverage, details, lists, observed
from neatlogs_processor.store.files import open_reader
from support.stored import NOW, Stored, write

MANY = [Stored(number, f"user {number % 7}", {"plan": "pro"}, session=f"s {number % 13}") for number in range(60)]
BOTH = parse("end_user contains user and metadata:plan is pro")
TRACE = MANY[30].trace_id

Question = Callable[[sqlite3.Connection], object]
QUESTIONS: dict[str, tuple[Question, str]] = {
    "newest traces": (lambda c: lists.traces(c, View(), NOW), "SEARCH t USING INDEX traces_by_start"),
    "traces by end user and metadata": (
        lambda c: lists.traces(c, View(filters=BOTH), NOW),
        "SEARCH t USING INDEX traces_by_start",
    ),
    "their sums": (
        lambda c: lists.summary(c, View(filters=BOTH[:1]), NOW),
        "SEARCH t USING COVERING INDEX traces_by_start",
    ),
    "newer traces": (lambda c: lists.newer(c, View(), NOW, TRACE), "USING COVERING INDEX traces_by_start"),
    "traces beside one": (lambda c: lists.neighbours(c, View(), TRACE, NOW), "SEARCH t USING INDEX traces_by_start"),
    "one trace": (lambda c: details.trace(c, TRACE), "SEARCH spans USING PRIMARY KEY (trace=?)"),
    "traces over time": (
        lambda c: observed.histogram(c, View(), NOW, 60),
        "SEARCH t USING COVERING INDEX traces_by_start",
    ),
    "end users": (lambda c: lists.users(c, View(Tab.USERS), NOW), "SEARCH t USING COVERING INDEX traces_by_start"),
    "end users by traces": (
        lambda c: lists.users(c, View(Tab.USERS, sort=Sort("traces")), NOW),
        "SEARCH t USING COVERING INDEX traces_by_start",
    ),
    "latest metadata": (
        lambda c: lists.latest_metadata(c, "user 1"),
        "SEARCH traces USING INDEX traces_with_metadata (end_user=?)",
    ),
    "end users by metadata": (
        lambda c: lists.users(c, View(Tab.USERS, BOTH[1:]), NOW),
        "SEARCH m USING INDEX traces_with_metadata (end_user=?)",
    ),
    "traces over time of end users": (
        lambda c: observed.sparklines(c, ["user 1", "user 2"], View(), NOW, 24),
        "SEARCH t USING COVERING INDEX traces_by_end_user (end_user=? AND start>? AND start<?)",
    ),
    "sessions": (
        lambda c: lists.sessions(c, View(Tab.SESSIONS), NOW),
        "SEARCH t USING COVERING INDEX traces_by_start",
    ),
    "sums of an end user": (
        lambda c: lists.sums_of(c, Tab.USERS, "user 1", View(Tab.USERS), NOW),
        "SEARCH t USING COVERING INDEX traces_by_end_user (end_user=? AND start>? AND start<?)",
    ),
    "sums of a session": (
        lambda c: lists.sums_of(c, Tab.SESSIONS, "s 1", View(Tab.SESSIONS), NOW),
        "SEARCH t USING INDEX traces_by_session (session=? AND start>? AND start<?)",
    ),
    "coverage": (
        lambda c: coverage.coverage(c, View(Tab.COVERAGE), NOW),
        "SEARCH t USING COVERING INDEX traces_by_start",
    ),
    "values of a field": (
        lambda c: observed.values(c, Field("end_user"), "a", View(), NOW, 8),
        "SEARCH t USING COVERING INDEX traces_by_start",
    ),
}


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """A store with sixty traces."""
    path: Path = tmp_path_factory.mktemp("plans") / "traces.db"
    write(path, MANY)
    opened = open_reader(path)
    yield opened
    opened.close()


def plan(connection: sqlite3.Connection, question: Question) -> list[str]:
    """Return the steps of all statements that a question leads to."""
    asked: list[str] = []
    connection.set_trace_callback(asked.append)
    question(connection)
    connection.set_trace_callback(None)
    return [row[3] for statement in asked for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]


@pytest.mark.parametrize(("question", "step"), QUESTIONS.values(), ids=QUESTIONS)
def test_a_question_goes_by_an_index(connection: sqlite3.Connection, question: Question, step: str) -> None:
    """The index is the one that was made for the question, and no table is read from end to end."""
    steps = plan(connection, question)
    assert any(step in one for one in steps), steps
    whole = [one for one in steps if one.startswith("SCAN") and "INDEX" not in one and "SUBQUERY" not in one]
    # Places at which overrides were ignored are few; a list of JSON values, or of rows put together, is no table.
    assert [one for one in whole if not any(word in one for word in ("SCAN o", "VIRTUAL", "(subquery", "latest"))] == []
