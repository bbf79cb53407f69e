"""What is counted once, and from when on: repeated requests, lost answers, crashes between a table and its views."""

from __future__ import annotations

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.policy import Override, Place
from neatlogs_processor.errors import MalformedOtlpError, StoreUnavailableError
from neatlogs_processor.store.clickhouse.connection import ClickHouseLogin
from neatlogs_processor.store.clickhouse.schema import view
from neatlogs_processor.store.clickhouse.writing import MAX_DAYS, by_days
from support.clickhouse_store import NOW, Database, rollups_of
from support.store_oracle import Sent
from support.store_parts import trace, traces

DAY = 86_400 * 10**9


def sums(database: Database) -> tuple[int, int]:
    """How many traces and how many spans the rollup counts."""
    found = rollups_of(database.client)
    return len(found), sum(said["spans"] for said in found.values())


def rows(database: Database, table: str = "otel_traces") -> int:
    """How many rows a table has."""
    return database.number(f"SELECT count() FROM {table}")  # noqa: S608  # a name of this file


def test_the_same_requests_again_are_not_written_again(database: Database) -> None:
    """Their token is the same, in whatever order they come: exact, at once, in every table."""
    one, two = traces(trace(1, spans=3)), traces(trace(2, spans=2))
    with database.writer() as writer:
        assert writer.write([one, two]).written == 5
        writer.write([two, one])
    assert (rows(database), rows(database, "neatlogs_traces"), sums(database)) == (5, 2, (2, 5))


def test_a_request_that_comes_again_in_other_company_counts_once(database: Database) -> None:
    """Exact at once in all sums, which are kept by span id; the rows of the tables are there twice, those of the
    rollups until their parts are merged."""
    one, two = traces(trace(1, spans=3)), traces(trace(2, spans=2))
    with database.writer() as writer:
        writer.write([one])
        writer.write([one, two])
    assert sums(database) == (2, 5)
    assert rows(database) == 8
    assert rows(database, "neatlogs_roots") == 3
    for table in ("neatlogs_roots", "neatlogs_traces"):
        database.client.command(f"OPTIMIZE TABLE {table} FINAL")
    assert (rows(database, "neatlogs_roots"), rows(database, "neatlogs_traces"), sums(database)) == (2, 2, (2, 5))


def test_a_span_that_stands_twice_in_a_group_is_written_once(database: Database) -> None:
    """Two clients that send the same at the same time are told the same; the repetition is counted."""
    outcome = database.write(*[traces(trace(1, spans=3)).body] * 2)
    assert (outcome.written, outcome.duplicates, outcome.answers, rows(database)) == (3, 3, [0, 0], 3)


def test_a_lost_answer_is_asked_for_again_under_the_same_token(database: Database) -> None:
    """The server had written it: nothing is written twice, and the client hears that it is there."""
    database.server.fail("otel_traces", 209, after=True)
    outcome = database.write(traces(trace(1, spans=3)).body)
    assert database.server.faults_left == 0
    assert (outcome.answers, rows(database), sums(database)) == ([0], 3, (1, 3))


def test_a_retry_mends_what_a_crash_has_left_short(database: Database) -> None:
    """The table recognises the repeated block, and the views, which never saw it, take it in."""
    request = traces(trace(1, spans=3))
    database.client.command("DROP VIEW neatlogs_traces_mv")
    database.write(request.body)
    assert sums(database) == (0, 0)
    database.client.command(view("neatlogs_traces"))
    database.write(request.body)
    assert (rows(database), rows(database, "neatlogs_roots"), sums(database)) == (3, 1, (1, 3))


def test_a_request_whose_rows_are_refused_does_not_cost_the_others(database: Database) -> None:
    """Each is then tried alone; what is refused alone is refused for good."""
    database.server.fail("otel_traces", 53, times=2)
    refused, kept = database.write(traces(trace(1)).body, traces(trace(2)).body).answers
    assert isinstance(refused, MalformedOtlpError)
    assert (kept, rows(database)) == (0, 1)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (243, "no room on its disk"),
        (252, "too many parts"),
        (242, "is read-only"),
        (497, "does not let default in"),
        (60, "store migrate"),
        (999, "error 999"),
    ],
)
def test_a_server_that_cannot_write_now_is_to_be_asked_again(database: Database, code: int, says: str) -> None:
    """Nothing was kept, and the cause is named without the server's own words."""
    database.server.fail("otel_traces", code, times=9)
    (answer,) = database.write(traces(trace(1)).body).answers
    assert isinstance(answer, StoreUnavailableError)
    assert says in str(answer)
    assert "made to fail" not in str(answer)


def test_a_request_that_is_no_otlp_is_refused_alone(database: Database) -> None:
    """The others of its group are written."""
    refused, kept = database.write(b"\xff\xff", traces(trace(1)).body).answers
    assert isinstance(refused, MalformedOtlpError)
    assert (kept, rows(database)) == (0, 1)


def test_spans_of_many_days_are_written_in_parts(database: Database) -> None:
    """A server refuses an insert into more than a hundred partitions; a clock that is wrong by years costs nobody."""
    (root,) = trace(1)
    spans = []
    for number in range(MAX_DAYS + 11):
        span = Span()
        span.CopyFrom(root.span)
        span.span_id, span.start_time_unix_nano = (number + 1).to_bytes(8, "big"), NOW - number * DAY
        spans.append(Sent(span, root.resource))
    request = traces(spans)
    assert database.write(request.body).answers == [0]
    assert (rows(database), sums(database)) == (len(spans), (1, len(spans)))
    assert [len(part) for part in by_days([(NOW - number * DAY,) for number in range(100)])] == [90, 10]


def test_ignored_overrides_are_kept_without_their_values(database: Database) -> None:
    """They are on the page as those of the embedded store are; the same one again is the same."""
    request = traces(trace(1, spans=2))
    assert request.enforced is not None
    one = Override(b"\x01" * 16, b"\x02" * 8, "shop", "lookup", Place.CHILD, "neatlogs.end_user.id")
    request.enforced.overrides.append(one)
    with database.writer() as writer:
        writer.write([request])
    with database.writer(clock=lambda: NOW + 1) as writer:
        writer.write([request, traces(trace(2))])
    found = database.client.query("SELECT * FROM neatlogs_overrides FINAL").result_rows
    assert found == [("01" * 16, "02" * 8, "child", "shop", "lookup", "neatlogs.end_user.id", NOW + 1)]


def test_a_server_that_cannot_be_reached_is_named(database: Database) -> None:
    """Whoever reads the log knows which one it is; its password is in no message."""
    login = ClickHouseLogin(database.login.address, "secret")
    assert "secret" not in repr(login)
    unreachable = Database.__new__(Database)
    unreachable.login = ClickHouseLogin(type(login.address)("127.0.0.1", 1))
    with unreachable.writer() as writer:
        (answer,) = writer.write([traces(trace(1))]).answers
    assert isinstance(answer, StoreUnavailableError)
    assert str(answer) == "ClickHouse at 127.0.0.1:1 cannot be reached"
