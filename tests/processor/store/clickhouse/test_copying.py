"""Moving from the embedded store to ClickHouse: complete, resumable, verified."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from neatlogs_processor.cli import main
from neatlogs_processor.core.policy import EndUserPolicy, Override, Place
from neatlogs_processor.errors import ProcessorError
from neatlogs_processor.store.clickhouse.copying import Copying, Cursor, Verified, refuse_difference
from neatlogs_processor.store.files import open_reader, open_writer
from neatlogs_processor.store.rows import read_request
from neatlogs_processor.store.writing import Writing
from support.clickhouse_store import NOW, POLICY, Database, rollups_of
from support.store_contents import rollups_of as rollups_of_sqlite
from support.store_oracle import Sent
from support.store_parts import START, trace
from support.store_strategies import attributes, request

TRACES = 40
KILLED = """
import os, signal, sys
from pathlib import Path
from neatlogs_processor.formats import ClickHouseAddress
from neatlogs_processor.store.clickhouse.connection import ClickHouseLogin, connect
from neatlogs_processor.store.clickhouse.copying import Copying
from neatlogs_processor.store.files import open_reader
path, address = Path(sys.argv[1]), ClickHouseAddress.parse(sys.argv[2])
seconds = iter(range(0, 1000, 2))
def said(cursor):
    if cursor.traces >= 15:
        os.kill(os.getpid(), signal.SIGKILL)
copying = Copying(open_reader(path), path, connect(ClickHouseLogin(address)), said=said, clock=lambda: next(seconds),
                  batch_spans=25)
copying.copy()
"""


def write(path: Path, sent: list[Sent], overrides: tuple[Override, ...] = (), policy: EndUserPolicy = POLICY) -> None:
    """Put spans into an embedded store."""
    with contextlib.closing(open_writer(path)) as connection:
        Writing(connection).write([(read_request(request(sent), policy), overrides)], NOW)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An embedded store of 40 traces, some of them with errors, tokens and overrides."""
    found = tmp_path / "traces.db"
    sent = [one for number in range(TRACES) for one in trace(number, spans=number % 4 + 1, user=f"user-{number % 7}")]
    for one in sent[::5]:
        one.span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR))
        one.span.attributes.extend(attributes({"gen_ai.usage.input_tokens": 7}))
    write(
        found,
        sent,
        (
            Override((3).to_bytes(16, "big"), (2).to_bytes(8, "big"), "shop", "s", Place.CHILD, "neatlogs.end_user.id"),
            Override(b"", b"", "shop", "tracer", Place.SCOPE, "neatlogs.end_user.id"),
        ),
    )
    return found


@contextlib.contextmanager
def copying(path: Path, database: Database) -> Iterator[Copying]:
    """A copy in batches of 25 spans."""
    with contextlib.closing(open_reader(path)) as source:
        yield Copying(source, path, database.client, said=lambda _: None, batch_spans=25)


def same(path: Path, database: Database) -> None:
    """Assert that both hold the same traces, with everything that their rollups say."""
    left = {"head_span_id", "head_start", "duration"}
    wanted = {
        trace_id: {name: value for name, value in said.items() if name not in left}
        for trace_id, said in rollups_of_sqlite(path).items()
    }
    assert rollups_of(database.client) == wanted


def test_everything_is_there_afterwards(path: Path, database: Database) -> None:
    """Every rollup says the same in both, every span is there once, and so are the overrides."""
    with copying(path, database) as one:
        done = one.copy()
        assert one.verify() == Verified(TRACES, 100, ())
    assert (done.last, done.traces, done.spans, done.damaged) == (TRACES, TRACES, 100, 0)
    same(path, database)
    assert database.number("SELECT count() FROM otel_traces") == 100
    assert database.client.query("SELECT trace_id, place FROM neatlogs_overrides FINAL ORDER BY ALL").result_rows == [
        ("", "scope"),
        ("0" * 31 + "3", "child"),
    ]


def test_it_goes_on_where_it_was_killed(path: Path, database: Database) -> None:
    """The second run copies what the first one had not, and the counts are equal: nothing twice, nothing missing."""
    url = database.server.url(database.name)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), url], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    with copying(path, database) as one:
        began = one.cursor()
        assert 15 <= began.traces < TRACES
        assert one.copy().traces == TRACES
        assert one.verify() == Verified(TRACES, 100, ())
    assert database.number("SELECT count() FROM otel_traces") == 100
    same(path, database)


def test_a_batch_whose_arrival_was_not_noted_is_not_counted_twice(path: Path, database: Database) -> None:
    """It was broken off between the insert and the note: the batch goes in again, under the same token."""
    database.server.fail("neatlogs_state` (", 999, times=1)
    with copying(path, database) as one:
        with pytest.raises(DatabaseError):
            one.copy()
        assert one.cursor() == Cursor()
        one.copy()
    assert database.number("SELECT count() FROM otel_traces") == 100
    same(path, database)


def test_what_arrives_later_is_copied_by_the_next_run(path: Path, database: Database) -> None:
    """The cursor says how far it has come; a trace that has grown since is found by comparing, and mended."""
    with copying(path, database) as one:
        one.copy()
    late = trace(0, spans=3)[1:]
    write(path, [*late, *trace(TRACES + 1)])
    with copying(path, database) as one:
        assert one.copy().traces == TRACES + 1
        assert one.verify() == Verified(TRACES + 1, 103, ())
    same(path, database)


def test_another_store_at_the_same_path_is_copied_from_its_beginning(path: Path, database: Database) -> None:
    """The cursor names the trace that it stands at."""
    with copying(path, database) as one:
        one.copy()
    for file in path.parent.glob("traces.db*"):
        file.unlink()
    write(path, [one for number in range(100, 150) for one in trace(number)])
    with copying(path, database) as one:
        assert one.cursor() == Cursor()
        one.copy()
    assert len(rollups_of(database.client)) == TRACES + 50


def test_entry_spans_keep_their_rank(tmp_path: Path, database: Database) -> None:
    """Which of them own identity was decided when they arrived, whatever the settings say by now."""
    entry = Span(
        trace_id=b"\x01" * 16,
        span_id=b"\x02" * 8,
        parent_span_id=b"\x03" * 8,
        name="GET /",
        flags=0x301,
        start_time_unix_nano=START,
        end_time_unix_nano=START + 1,
        attributes=attributes({"neatlogs.end_user.id": "alice"}),
    )
    resource = Resource(attributes=attributes({"service.name": "gateway"}))
    path = tmp_path / "traces.db"
    write(path, [Sent(entry, resource)], policy=EndUserPolicy("entry", frozenset({"gateway"})))
    with copying(path, database) as one:
        one.copy()
        assert one.verify().different == ()
    assert rollups_of(database.client)[b"\x01" * 16]["end_user"] == "alice"


def test_a_difference_is_an_error(path: Path, database: Database) -> None:
    """It names the traces: here somebody has more spans of one in ClickHouse than the source has."""
    with copying(path, database) as one:
        one.copy()
        database.write(request([*trace(0, spans=2)]))
        verified = one.verify()
    assert verified.different == ("0" * 31 + "1",)
    with pytest.raises(ProcessorError, match=r"1 of 40 traces differ or are missing in ClickHouse: 0{31}1;"):
        refuse_difference(verified)


def test_the_command_says_how_far_it_is_and_that_it_was_verified(
    path: Path, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    """One command moves everything; the second time it says that it goes on."""
    words = ["store", "copy", f"sqlite:{path}", database.server.url(database.name)]
    assert main(words) == 0
    assert capsys.readouterr().out == (
        "40 traces with 100 spans copied\nverified: 40 traces with 100 spans are the same in both\n"
    )
    assert main(words) == 0
    assert "going on behind the 40 traces that were copied before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            (),
            "store copy takes a source of the form sqlite:FILE; write store copy sqlite:FILE clickhouse://user@host:8123/database",
        ),
        (("traces.db",), "store copy takes a source of the form sqlite:FILE"),
        (("sqlite:x", "postgres://h/d"), "store copy takes a target of the form clickhouse://"),
        (("sqlite:x", "clickhouse://me:secret@h/d"), "a password does not belong here"),
        (("sqlite:/nowhere/traces.db", "clickhouse://h/d"), "there is no store at /nowhere/traces.db"),
    ],
)
def test_a_copy_that_is_not_written_like_this_is_refused(
    words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message says how it is written, and never repeats a password."""
    assert main(["store", "copy", *words]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "secret" not in said
