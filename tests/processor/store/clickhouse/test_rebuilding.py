"""Rollups that are short are found, and filled: for spans from before, and after a crash between table and views."""

from __future__ import annotations

import io
import threading

import pytest

from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.store.clickhouse.rebuilding import compare, rebuild, report
from neatlogs_processor.store.clickhouse.schema import ROLLUPS, view
from support.clickhouse_store import Database, rollups_of
from support.store_parts import trace, traces

THE_DAY = "2026-11-18"


@pytest.fixture
def filled(database: Database) -> Database:
    """A database with three traces of five spans."""
    database.write(*[traces(trace(number, spans=5)).body for number in range(3)])
    return database


def emptied(database: Database) -> None:
    """Take everything out of the rollups, as if the views had been made after the spans."""
    for table in ROLLUPS:
        database.client.command(f"TRUNCATE TABLE {table}")


def test_rollups_that_are_whole_are_left_alone(filled: Database) -> None:
    """Every day is compared, and none is filled."""
    out = io.StringIO()
    assert rebuild(filled.client, out).filled == []
    assert out.getvalue() == "1 days compared, 0 of them filled\n"
    assert not report(filled.client, io.StringIO())


def test_spans_from_before_are_filled_in(filled: Database) -> None:
    """What comes out is what the views would have made."""
    before = rollups_of(filled.client)
    roots = filled.client.query("SELECT * FROM neatlogs_roots ORDER BY ALL").result_rows
    emptied(filled)
    out = io.StringIO()
    done = rebuild(filled.client, out)
    assert [str(day) for day in done.filled] == [THE_DAY]
    assert out.getvalue() == (
        f"{THE_DAY}  filled: 0 of 15 spans were counted, 0 of 3 roots found\n1 days compared, 1 of them filled\n"
    )
    assert rollups_of(filled.client) == before
    assert filled.client.query("SELECT * FROM neatlogs_roots ORDER BY ALL").result_rows == roots
    assert filled.number("SELECT count() FROM neatlogs_users") == 1


@pytest.mark.parametrize("table", ["neatlogs_roots", "neatlogs_traces"])
def test_a_view_that_missed_an_insert_is_found_and_mended(filled: Database, table: str) -> None:
    """As a crash between the table and a view leaves it: the rest is there, and counts once all the same."""
    before = rollups_of(filled.client)
    filled.client.command(f"DROP VIEW {table}_mv")
    filled.write(traces(trace(7, spans=2)).body)
    filled.client.command(view(table))
    out = io.StringIO()
    assert report(filled.client, out)
    assert "1 days compared, 1 of them short" in out.getvalue()
    rebuild(filled.client, io.StringIO())
    (day,) = compare(filled.client)
    assert (day.spans, day.counted, day.roots, day.found) == (17, 17, 4, 4)
    after = rollups_of(filled.client)
    assert {trace_id: after[trace_id] for trace_id in before} == before
    assert not report(filled.client, io.StringIO())


def test_filling_what_is_whole_changes_nothing(filled: Database) -> None:
    """So it is safe at any time, as often as one likes, and while others write."""
    before = rollups_of(filled.client)
    for _ in range(2):
        rebuild(filled.client, io.StringIO(), every_day=True)
    assert rollups_of(filled.client) == before


def test_filling_while_others_write_counts_everything_once(filled: Database) -> None:
    """What is written meanwhile is filled, or comes through the views, or both."""
    bodies = [traces(trace(number, spans=3)).body for number in range(10, 22)]

    def write() -> None:
        with filled.writer() as writer:
            for body in bodies:
                writer.write([Request(Signal.TRACES, body)])

    emptied(filled)
    thread = threading.Thread(target=write)
    thread.start()
    client = filled.server.client(filled.name)
    try:
        while thread.is_alive():
            rebuild(client, io.StringIO(), every_day=True)
    finally:
        thread.join()
    rebuild(client, io.StringIO())
    client.close()
    found = rollups_of(filled.client)
    assert sorted(said["spans"] for said in found.values()) == [3] * 12 + [5] * 3


def test_rollups_with_more_than_the_table_are_named(filled: Database) -> None:
    """Somebody deleted spans of the table alone: that is said, and not guessed at."""
    filled.client.command("TRUNCATE TABLE otel_traces")
    out = io.StringIO()
    rebuild(filled.client, out)
    assert f"of 1 days the rollups have more than otel_traces, where rows were deleted by themselves: {THE_DAY}" in (
        out.getvalue()
    )
