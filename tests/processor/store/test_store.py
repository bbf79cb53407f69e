"""The store as a destination: acknowledged after commit, refused for a while, read meanwhile, ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.errors import MalformedOtlpError, StoreUnavailableError
from neatlogs_processor.query.view import ALL_TIME, View
from neatlogs_processor.store.files import LOG_BYTES, beside, open_reader, open_writer
from neatlogs_processor.store.reader import SqliteReader
from neatlogs_processor.store.retention import DAY, Limits
from neatlogs_processor.store.sqlite import TROUBLE_SECONDS
from support.processor import until
from support.store_contents import assert_sound, rollups_of, spans_of
from support.store_oracle import Sent
from support.store_parts import START, store_at, trace, traces
from support.store_strategies import request


@contextlib.contextmanager
def held(path: Path) -> Iterator[sqlite3.Connection]:
    """Hold the store's write lock, as another process that writes it does."""
    with contextlib.closing(open_writer(path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as a quota or a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_an_answer_comes_after_the_commit(tmp_path: Path) -> None:
    """Once a request is acknowledged, another connection finds its spans; until then the client waits."""
    path = tmp_path / "traces.db"
    async with store_at(path) as parts:
        with held(path):
            waiting = asyncio.ensure_future(parts.store.send(traces(trace(1, spans=3))))
            await asyncio.wait([waiting], timeout=0.2)
            assert not waiting.done()
        assert await waiting == b""
        assert spans_of(path).total() == 3
        assert parts.telemetry.counters.store_spans.get("written") == 3


async def test_the_same_request_twice_counts_once(tmp_path: Path) -> None:
    """A repeated request is acknowledged like the first, changes nothing and is counted as a duplicate."""
    async with store_at(tmp_path / "traces.db") as parts:
        one = traces(trace(1, spans=3))
        assert [await parts.store.send(one) for _ in range(3)] == [b"", b"", b""]
        counted = parts.telemetry.counters.store_spans
        assert (counted.get("written"), counted.get("duplicate")) == (3, 6)
        assert rollups_of(parts.path)[trace(1)[0].span.trace_id]["spans"] == 3


async def test_requests_that_wait_share_a_transaction(tmp_path: Path) -> None:
    """What gathers while a commit is under way is written together, each request with an answer of its own."""
    path = tmp_path / "traces.db"
    async with store_at(path) as parts:
        with held(path):
            sends = [asyncio.ensure_future(parts.store.send(traces(trace(number)))) for number in range(200)]
            await asyncio.sleep(0)
        assert await asyncio.gather(*sends) == [b""] * 200
        assert spans_of(path).total() == 200


async def test_spans_without_ids_are_a_partial_success(tmp_path: Path) -> None:
    """A span that no id tells from others cannot be kept: the sender is told how many, the rest is kept."""
    body = request([*trace(1, spans=2), Sent(Span(name="no ids"), Resource())])
    async with store_at(tmp_path / "traces.db") as parts:
        answer = ExportTraceServiceResponse.FromString(await parts.store.send(Request(Signal.TRACES, body)))
        assert answer.partial_success.rejected_spans == 1
        assert answer.partial_success.error_message == "1 spans have no trace id or no span id"
        assert parts.telemetry.counters.store_spans.get("without_id") == 1
        assert spans_of(parts.path).total() == 2


async def test_a_request_that_cannot_be_read_costs_the_others_nothing(tmp_path: Path) -> None:
    """Text that is not UTF-8 is refused for good, alone; what waits beside it is written."""
    broken = traces(trace(1)).body.replace(b"span 0", b"span \xff")
    path = tmp_path / "traces.db"
    async with store_at(path) as parts:
        with held(path):
            one = asyncio.ensure_future(parts.store.send(traces(trace(2))))
            other = asyncio.ensure_future(parts.store.send(Request(Signal.TRACES, broken)))
            await asyncio.sleep(0)
        assert await one == b""
        with pytest.raises(MalformedOtlpError, match="not OTLP"):
            await other
        assert parts.store.trouble == ""


async def test_a_request_that_the_database_refuses_costs_the_others_nothing(tmp_path: Path) -> None:
    """Where one request of a group breaks a constraint, it fails alone, and the rest of the group is written."""
    path = tmp_path / "traces.db"
    async with store_at(path) as parts:
        with held(path) as connection:
            connection.execute(
                "CREATE TRIGGER obstacle BEFORE INSERT ON traces WHEN new.end_user = 'mallory'"
                " BEGIN SELECT raise(ABORT, 'no'); END"
            )
            users = ("alice", "mallory", "bob")
            sends = [
                asyncio.ensure_future(parts.store.send(traces(trace(number, user=user))))
                for number, user in enumerate(users)
            ]
            await asyncio.sleep(0)
            connection.execute("COMMIT")
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        assert outcomes[::2] == [b"", b""]
        assert isinstance(outcomes[1], sqlite3.IntegrityError)
        assert spans_of(path).total() == 2
    assert_sound(path)


async def test_a_client_that_goes_away_takes_its_request_along(tmp_path: Path) -> None:
    """What nobody waits for any more, and nobody has begun to write, is not held: nobody counts its bytes any more."""
    path = tmp_path / "traces.db"
    async with store_at(path) as parts:
        with held(path):
            begun = asyncio.ensure_future(parts.store.send(traces(trace(0))))
            await asyncio.sleep(0)
            await until(lambda: parts.store.waiting == 0)
            gone = [asyncio.ensure_future(parts.store.send(traces(trace(number)))) for number in range(1, 50)]
            await until(lambda: parts.store.waiting == 49)
            for send in gone:
                send.cancel()
            await asyncio.gather(*gone, return_exceptions=True)
            assert parts.store.waiting == 0
        assert await begun == b""
        assert spans_of(path).total() == 1


async def test_a_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    """Without room a request is to come again; what was acknowledged is there; with room it goes on where it was."""
    path = tmp_path / "traces.db"
    async with store_at(path) as parts:
        await parts.keep(count=3)
        with file_size_limit(beside(path, "wal").stat().st_size + 4096):
            refused = await parts.fill(padding=20_000)
            assert refused.retryable
            assert refused.retry_after > 0
            assert "there is no room on the disk" in str(refused)
            assert parts.store.trouble == str(refused)
        await parts.keep(count=3)
        assert parts.store.trouble == ""
        assert len(rollups_of(path)) == len(parts.kept) == 6
    assert_sound(path)


async def test_without_a_reserve_nothing_is_taken(tmp_path: Path) -> None:
    """Spans are taken only while deletions have room too; these go on meanwhile."""
    path = tmp_path / "traces.db"
    async with store_at(path, Limits(max_age=DAY)) as parts:
        await parts.keep(count=3)
        beside(path, "reserve").unlink()
        with file_size_limit(2 * 2**20):
            assert "there is no room on the disk" in str(await parts.fill(padding=0))
            parts.clock.now += 2 * DAY
            await parts.fill(padding=0)
            await until(lambda: parts.pruned() == 3)
        await parts.keep()
        assert beside(path, "reserve").stat().st_size == 4 * 2**20


async def test_a_lock_that_stays_refuses(tmp_path: Path) -> None:
    """Where another process writes for longer than one can wait, requests are to come again; afterwards all goes on."""
    path = tmp_path / "traces.db"
    async with store_at(path, patience=0.05) as parts:
        with held(path):
            refused = await parts.fill(padding=0)
            assert "another process is writing to it" in str(refused)
        await parts.keep()


async def test_trouble_is_forgotten_when_nobody_comes(tmp_path: Path) -> None:
    """A refusal is trouble for ten seconds: a load balancer that sends nothing must learn that it may try again."""
    path = tmp_path / "traces.db"
    async with store_at(path, patience=0.05) as parts:
        with held(path):
            await parts.fill(padding=0)
        parts.seconds.now = round(TROUBLE_SECONDS) - 1
        assert "another process" in parts.store.trouble
        parts.seconds.now += 1
        assert parts.store.trouble == ""


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_was_removed_takes_nothing(tmp_path: Path, replaced: bool) -> None:
    """Spans are not acknowledged into a file that has lost its name, or lies beside another that has it now."""
    path = tmp_path / "traces.db"
    async with store_at(path) as parts:
        await parts.keep()
        path.rename(tmp_path / "away.db")
        if replaced:
            path.touch()
        refused = await parts.fill(padding=0)
        assert "was removed or replaced while it was open; restart the processor" in str(refused)
        (tmp_path / "away.db").rename(path)
        await parts.keep()
    assert spans_of(path).total() == 2


async def test_damage_while_it_runs_refuses(tmp_path: Path) -> None:
    """Where SQLite finds the file damaged, nothing is acknowledged, and the answer says what to do."""
    path = tmp_path / "traces.db"
    async with store_at(path) as parts:
        await parts.keep(count=5, spans=20, padding=1000)
    with contextlib.closing(open_reader(path)) as connection:
        page_size = connection.execute("PRAGMA page_size").fetchone()[0]
    content = path.read_bytes()
    # All but the first page, which says that this is a store of ours.
    path.write_bytes(content[:page_size] + b"\xff" * (len(content) - page_size))
    async with store_at(path) as parts:
        refused = await parts.fill(padding=0)
        assert refused.retryable
        assert "its file is damaged" in str(refused)
        assert "move the file away" in str(refused)


async def test_a_long_look_holds_up_no_writer(tmp_path: Path) -> None:
    """Whoever reads sees one moment for as long as they look, while a thousand spans are acknowledged; then all."""
    path = tmp_path / "traces.db"
    async with store_at(path) as parts:
        await parts.keep()
        with contextlib.closing(open_reader(path)) as connection:
            connection.execute("BEGIN")
            assert connection.execute("SELECT count(*) FROM spans").fetchone() == (1,)
            await parts.keep(count=20, spans=50)
            assert connection.execute("SELECT count(*) FROM spans").fetchone() == (1,)
            connection.execute("ROLLBACK")
            assert connection.execute("SELECT count(*) FROM spans").fetchone() == (1001,)


async def test_the_page_reads_what_another_connection_writes(tmp_path: Path) -> None:
    """A reader that was opened before sees each trace as soon as it is acknowledged."""
    path = tmp_path / "traces.db"
    async with store_at(path) as parts:
        with contextlib.closing(SqliteReader(path)) as reader:
            for count in range(1, 6):
                await parts.keep()
                assert len(reader.traces(View(period=ALL_TIME), now=START).rows) == count


async def test_a_log_that_grew_is_cut_back(tmp_path: Path) -> None:
    """While somebody looks for long the log grows; afterwards it is cut back to what the documentation says."""
    path = tmp_path / "traces.db"
    async with store_at(path) as parts:
        with contextlib.closing(open_reader(path)) as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM spans").fetchone()
            while beside(path, "wal").stat().st_size <= LOG_BYTES:
                await parts.keep(spans=100, padding=20_000)
        parts.seconds.now += 60
        await parts.keep()
        await until(lambda: beside(path, "wal").stat().st_size <= LOG_BYTES)
        assert len(rollups_of(path)) == len(parts.kept)


async def test_the_end_writes_what_is_waiting(tmp_path: Path) -> None:
    """Closing answers every request that was taken and ends the thread; what comes afterwards is refused retryably."""
    path = tmp_path / "traces.db"
    async with store_at(path) as parts:
        with held(path):
            sends = [asyncio.ensure_future(parts.store.send(traces(trace(number)))) for number in range(300)]
            await asyncio.sleep(0)
            closing = asyncio.ensure_future(parts.store.close())
            await asyncio.sleep(0)
        await closing
        assert await asyncio.gather(*sends) == [b""] * 300
        assert not [thread for thread in threading.enumerate() if thread.name == "neatlogs-store"]
        with pytest.raises(StoreUnavailableError, match="closed"):
            await parts.store.send(traces(trace(1)))
    assert spans_of(path).total() == 300


async def test_a_bug_leaves_nobody_waiting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If the writing thread should ever fail, every request is answered and says so, and the log says where."""

    def broken_clock() -> int:
        raise ZeroDivisionError

    async with store_at(tmp_path / "traces.db", Limits(max_age=DAY), clock=broken_clock) as parts:
        with pytest.raises(StoreUnavailableError, match=r"closed|because of a bug"):
            await parts.store.send(traces(trace(1)))
        await until(lambda: parts.store.trouble != "")
        assert "because of a bug; restart the processor" in parts.store.trouble
    assert parts.telemetry.counters.failures.total() == 1
    assert "the store has stopped because of a bug" in caplog.text


async def test_requests_that_no_rule_has_seen(tmp_path: Path) -> None:
    """A request without overrides, because the rule has not looked at it, is kept like any other."""
    async with store_at(tmp_path / "traces.db") as parts:
        assert await parts.store.send(replace(traces(trace(1)), enforced=None)) == b""
        assert spans_of(parts.path).total() == 1
