"""`make bench-store ENGINE=clickhouse`: what it costs to keep traces on ClickHouse, beside the embedded store.

Without a server (`CLICKHOUSE=http://user:password@host:8123`) the engine that the tests bring, chdb, runs behind HTTP
in a process of its own: the same engine, on the cores of everything else. The same batches go into both stores.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import closing
from itertools import islice
from pathlib import Path

from clickhouse_connect.driver.client import Client

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.errors import StoreUnavailableError
from neatlogs_processor.store.clickhouse.reader import ClickHouseReader
from neatlogs_processor.store.clickhouse.schema import TABLES
from neatlogs_processor.store.clickhouse.writing import ClickHouseWriter
from tests.bench import store_questions
from tests.bench.payloads import Kind
from tests.bench.store_traffic import BATCH, NOW, batches

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.clickhouse_server import clickhouse_server
from support.clickhouse_store import Database

GROUP = 40
"""Requests that go in together: those of a second, at 20,000 spans a second."""

_POLICY = EndUserPolicy()


def measure(sqlite: Path, kind: Kind, spans: int, copies: int) -> None:
    """Fill a database with what an embedded store holds, ask both, and then again with so many copies of it more."""
    with clickhouse_server() as server:
        database = Database(server)
        try:
            _fill(database, kind, spans, server.pid)
            _sizes(database.client)
            reader = ClickHouseReader(lambda: server.client(database.name))
            with closing(reader):
                print()
                store_questions.compare(sqlite, {"ClickHouse": reader})
                if copies:
                    _multiply(database.client, copies)
                    _sizes(database.client)
                    print()
                    store_questions.ask_other(sqlite, {"ClickHouse": reader})
        finally:
            database.close()


def _fill(database: Database, kind: Kind, spans: int, pid: int | None) -> None:
    written, seconds, cpu = 0, 0.0, 0.0
    server = _cpu_of(pid)
    writer = ClickHouseWriter(
        database.login,
        policy=_POLICY,
        clock=lambda: NOW,
        unavailable=lambda cause: StoreUnavailableError(cause, retry_after=1.0),
    )
    with closing(writer):
        bodies = batches(kind, spans)
        while group := list(islice(bodies, GROUP)):
            enforced = [enforce_traces(body, _POLICY) for body in group]
            requests = [Request(Signal.TRACES, one.body, enforced=one) for one in enforced]
            began, used = time.perf_counter(), time.process_time()
            outcome = writer.write(requests)
            seconds += time.perf_counter() - began
            cpu += time.process_time() - used
            if any(outcome.answers):
                raise RuntimeError(f"a request was refused: {outcome.answers}")
            written += outcome.written
    server = _cpu_of(pid) - server
    print(
        f"{written:,} {kind} spans in groups of {GROUP * BATCH:,}: {written / seconds:,.0f} spans/s;"
        f" CPU-s a million: {cpu / written * 1e6:.1f} here, {server / written * 1e6:.1f} in the server"
    )


def _multiply(client: Client, copies: int) -> None:
    """Insert every span again so many times, in other traces of the same end users, and say how fast that was."""
    spans = int(str(client.command("SELECT count() FROM otel_traces")))
    client.command("CREATE TABLE bench_spans AS otel_traces ENGINE = MergeTree ORDER BY tuple()")
    client.command("INSERT INTO bench_spans SELECT * FROM otel_traces")
    began = time.perf_counter()
    for number in range(1, copies + 1):
        # The first eight digits of a trace id are replaced; all else stays, so that sums and ages are alike.
        client.command(
            f"INSERT INTO otel_traces SELECT * REPLACE (concat(lower(hex(toUInt32({number}))), substring(TraceId, 9))"  # noqa: S608  # a number
            " AS TraceId) FROM bench_spans SETTINGS insert_deduplicate = 0, max_partitions_per_insert_block = 0"
        )
    seconds = time.perf_counter() - began
    client.command("DROP TABLE bench_spans")
    print(
        f"\n{spans * (copies + 1):,} spans; the copies came in at {spans * copies / seconds:,.0f} spans/s,"
        " the views included"
    )


def _sizes(client: Client) -> None:
    (spans,) = client.query("SELECT count() FROM otel_traces").first_row or (1,)
    for table in TABLES:
        (size,) = client.query(
            "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase()"
            " AND table = {table:String}",
            parameters={"table": table},
        ).first_row or (0,)
        print(f"{table:28} {int(size or 0) / spans:8.1f} bytes a span")


def _cpu_of(pid: int | None) -> float:
    """CPU-seconds of a process of this machine."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
