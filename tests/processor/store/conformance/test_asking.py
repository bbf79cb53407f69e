"""What a question may cost, and what whoever asked is told when the server does not answer it."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest

from neatlogs_processor.errors import StoreUnavailableError
from neatlogs_processor.query.clickhouse_dialect import fold
from neatlogs_processor.query.errors import QueryError
from neatlogs_processor.query.text import parse
from neatlogs_processor.query.view import ALL_TIME, SORTS, Sort, Tab, View
from neatlogs_processor.store.clickhouse.asking import AT_ONCE, Connection, Question, answered
from neatlogs_processor.store.selecting import write_cursor
from support.clickhouse_server import REAL
from support.stored import NOW, Stored
from support.two_engines import Database, page_of

needs_faults = pytest.mark.skipif(bool(REAL), reason="a real server does not fail when it is told to")


@needs_faults
@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (159, "this takes longer than 10 s; ask for a shorter period or with fewer filters"),
        (241, "more memory than the ClickHouse server gives a question"),
        (202, "answers as many questions as it can; ask again"),
        (60, "store migrate"),
        (497, "does not let this user ask"),
        (164, "readonly = 2 would"),
        (999, "cannot answer (error 999)"),
    ],
)
def test_errors_of_the_server_are_sentences_of_ours(database: Database, code: int, sentence: str) -> None:
    """What goes wrong is said with what to do, and without the statement, which holds what was typed."""
    database.server.fail("SELECT t.trace_id", code)
    try:
        with pytest.raises(StoreUnavailableError) as caught:
            database.reader.traces(View(filters=parse("workflow is secret")), now=NOW)
    finally:
        database.server.recover()
    assert sentence in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.retryable


@pytest.mark.parametrize("sort", ["-start", "-duration"])
@pytest.mark.parametrize(("value", "tie"), [(5, 7), ("x", "00" * 16), (5, None)])
def test_a_cursor_of_another_store_is_a_question_that_cannot_be_understood(
    database: Database, sort: str, value: object, tie: object
) -> None:
    """Whoever has turned pages before the move, or makes a cursor up, is told to begin again, and not to wait."""
    view = View(period=ALL_TIME, sort=Sort(sort[1:]))
    view = replace(view, cursor=write_cursor(view, value, tie))
    with pytest.raises(QueryError, match="cursor"):
        database.reader.traces(view, now=NOW)


@pytest.mark.parametrize("tab", [Tab.SESSIONS, Tab.USERS])
def test_a_cursor_of_another_type_is_refused_for_groups(database: Database, tab: Tab) -> None:
    """So it is for sessions and end users."""
    for sort in SORTS[tab]:
        view = View(tab, period=ALL_TIME, sort=Sort(sort))
        for value, tie in (("x" if sort != "end_user" else 5, "x"), (5, 5)):
            with pytest.raises(QueryError, match="cursor"):
                page_of(database.reader, replace(view, cursor=write_cursor(view, value, tie)))


def test_a_question_has_a_time(database: Database) -> None:
    """What takes longer is given up by the server itself."""
    with pytest.raises(StoreUnavailableError, match=r"takes longer than 0\.5 s"), answered(0.5):
        Question(database.client, 0.5).rows("SELECT sum(sipHash64(number)) FROM numbers(1000000000000)")


def test_a_question_changes_nothing(database: Database) -> None:
    """Statements of a question are read-only for the server."""
    with pytest.raises(StoreUnavailableError), answered(10.0):
        Question(database.client, 10.0).rows("TRUNCATE TABLE neatlogs_users")


def test_only_so_many_questions_are_asked_at_once(database: Database) -> None:
    """Those that find no place in time are told to ask again, and those that do are answered."""
    connection = Connection(lambda: database.client, patience=0.5)
    with contextlib.ExitStack() as asked:
        for _ in range(AT_ONCE):
            asked.enter_context(connection.question())
        with pytest.raises(StoreUnavailableError, match="too many questions"), connection.question():
            pass
    with connection.question() as question:
        assert question.rows("SELECT ?", (1,)) == [(1,)]


def test_a_server_that_is_not_there_is_asked_again(database: Database) -> None:
    """A reader connects with its first question, and with the next one where that failed."""
    tries = iter([ConnectionRefusedError(), None])

    def connect() -> object:
        refused = next(tries)
        if refused is not None:
            raise refused
        return database.client

    connection = Connection(connect, patience=1.0)
    with pytest.raises(StoreUnavailableError, match="cannot be reached"), connection.question():
        pass
    with connection.question() as question:
        assert question.rows("SELECT ?", ("text",)) == [("text",)]


def test_an_older_server_ignores_case_too(database: Database) -> None:
    """Before ClickHouse had case folding, letters of one case are the same as of the other, accents included."""
    older = Question(database.client, 10.0).rows(
        f"SELECT {fold('?', (25, 8))}, {fold('?', (25, 8))}", ("GRÖSSE Ⅷ", "größe ⅷ")
    )
    assert older == [("grösse viii", "größe viii")]


def test_a_trace_that_nobody_has_is_none(database: Database) -> None:
    """Ids that no trace has, and what is no id at all, are answered with nothing."""
    database.fill([Stored(1).request()])
    assert [database.reader.trace(name) for name in ("00" * 16, "ab", "'; DROP TABLE otel_traces --")] == [None] * 3
    assert database.reader.trace(Stored(1).trace_id) is not None
