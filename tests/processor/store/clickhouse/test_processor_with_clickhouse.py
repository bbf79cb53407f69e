"""The processor with a store on ClickHouse: what it acknowledges and when, outages, and what it does not start with."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from neatlogs_processor.errors import ConfigError, ProcessorError
from neatlogs_processor.formats import ClickHouseAddress
from neatlogs_processor.store.clickhouse import commands
from neatlogs_processor.store.clickhouse.connection import ClickHouseLogin, connect
from neatlogs_processor.store.clickhouse.destination import ClickHouseStore
from neatlogs_processor.telemetry import Telemetry
from support.certificates import Authority
from support.clickhouse_server import ClickHouseServer, clickhouse_server
from support.clickhouse_store import POLICY, Database, rollups_of
from support.processor import program, run, running, until
from support.store_parts import trace, traces
from support.upstream import Upstream, export, refused

FAST = ("--store-batch-time", "20ms")


@pytest.fixture(scope="module")
def guarded() -> Iterator[ClickHouseServer]:
    """A server of its own, which may be killed, with a password."""
    with clickhouse_server(password="open sesame") as server:
        yield server


@pytest.fixture(scope="module")
def theirs(guarded: ClickHouseServer) -> Database:
    """A database of it."""
    return Database(guarded)


@pytest.fixture
def mortal(theirs: Database) -> Iterator[Database]:
    """The same, with nothing in it; its server lives again afterwards."""
    theirs.empty()
    yield theirs
    theirs.server.kill()
    theirs.server.restart()


def url(database: Database) -> str:
    """The store's address."""
    return database.server.url(database.name)


async def ready(admin: str) -> tuple[int, str]:
    """Ask the admin port whether requests are taken."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://{admin}/readyz")
    return answer.status_code, answer.text.strip()


async def test_what_is_acknowledged_is_on_the_server(database: Database) -> None:
    """A whole processor: the answer comes when the spans can be read, and it ends well."""
    async with program("--grpc-listen", "127.0.0.1:0", "--store", url(database), *FAST) as processor:
        target = await processor.ready()
        assert await export(target, traces(trace(1, spans=3)).body) == b""
        assert [said["spans"] for said in rollups_of(database.client).values()] == [3]
        processor.kill(signal.SIGTERM)
        finished = await processor.end()
    assert finished.code == 0
    assert f"store {url(database)}" in finished.stderr


async def test_what_was_just_acknowledged_is_on_the_page(database: Database) -> None:
    """The page of the same processor asks the same database."""
    async with running(store=url(database), store_batch_time="0s") as processor:
        await export(processor.target, traces(trace(1, spans=3, user="alice@example.com")).body)
        async with httpx.AsyncClient(timeout=60) as client:
            answer = await client.get(f"http://{processor.admin}/traces?last=all")
    assert answer.status_code == 200
    assert "alice@example.com" in answer.text


async def test_requests_of_one_moment_go_in_together(database: Database) -> None:
    """Small inserts are what costs the server most: it has made one part for all of them."""
    async with running(store=url(database), store_batch_time="1s") as processor:
        bodies = [traces(trace(number)).body for number in range(8)]
        await asyncio.gather(*[export(processor.target, body) for body in bodies])
    assert database.number("SELECT count() FROM otel_traces") == 8
    parts = "SELECT count() FROM system.parts WHERE database = currentDatabase() AND table = 'otel_traces' AND active"
    assert database.number(parts) == 1


async def test_the_metrics_and_the_partial_success_are_those_of_every_store(database: Database) -> None:
    """Written, there already, and without ids."""
    without = traces(trace(1), trace(2))
    body = without.body.replace((1).to_bytes(8, "big"), bytes(8))
    async with running(store=url(database), store_batch_time="0s") as processor:
        answer = ExportTraceServiceResponse.FromString(await export(processor.target, body))
        await export(processor.target, traces(trace(3, spans=2)).body)
        counter = processor.service.telemetry.counters.store_spans
        assert (counter.get("written"), counter.get("without_id")) == (2, 2)
    assert answer.partial_success.rejected_spans == 2


async def test_what_waits_is_written_when_it_stops(database: Database) -> None:
    """The batch that was gathering is not waited out, and its clients hear that it is there."""
    async with running(store=url(database), store_batch_time="5s") as processor:
        sending = asyncio.create_task(export(processor.target, traces(trace(1)).body))
        await until(lambda: processor.service.telemetry.gauges.requests_in_flight.read() == 1)
    assert await sending == b""
    assert len(rollups_of(database.client)) == 1


async def test_an_outage_is_answered_with_come_again_and_ends_by_itself(mortal: Database, tmp_path: Path) -> None:
    """It starts without its server, is not ready, refuses for the moment, and takes what comes when the server is back;
    after another outage too."""
    password = tmp_path / "password"
    password.write_text(f"{mortal.server.password}\n")
    mortal.server.kill()
    body = traces(trace(1, spans=2)).body
    async with running(store=url(mortal), store_batch_time="0s", store_password_file=str(password)) as processor:
        for attempt in range(2):
            error = await refused(processor.target, body)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert f"ClickHouse at 127.0.0.1:{mortal.server.port} cannot be reached" in str(error.details())
            assert "google.rpc.retryinfo-bin" in dict(error.trailing_metadata() or ())
            code, says = await ready(processor.admin)
            assert (code, "cannot be reached" in says) == (503, True)
            mortal.server.restart()
            assert await export(processor.target, body) == b""
            assert (await ready(processor.admin))[0] == 200
            if not attempt:
                mortal.server.kill()
    assert [said["spans"] for said in rollups_of(mortal.client).values()] == [2]


async def test_a_durable_queue_bridges_an_outage(mortal: Database, tmp_path: Path) -> None:
    """With --queue-dir it acknowledges what is on its own disk, stays ready, and delivers when the server is back."""
    password = tmp_path / "password"
    password.write_text(mortal.server.password)
    mortal.server.kill()
    flags = {"store": url(mortal), "store_batch_time": "0s", "store_password_file": str(password)}
    async with running(**flags, queue_dir=str(tmp_path / "queue")) as processor:
        for number in range(3):
            assert await export(processor.target, traces(trace(number, spans=2)).body) == b""
        assert (await ready(processor.admin))[0] == 200
        mortal.server.restart()
        await until(lambda: processor.service.queue_state is not None and not processor.service.queue_state.requests)
    assert [said["spans"] for said in rollups_of(mortal.client).values()] == [2, 2, 2]


async def test_beside_an_upstream_it_is_written_first_and_is_best_effort(mortal: Database, tmp_path: Path) -> None:
    """As every store: an outage of it is counted and does not cost the upstream anything."""
    password = tmp_path / "password"
    password.write_text(mortal.server.password)
    flags = {"store": url(mortal), "store_batch_time": "0s", "store_password_file": str(password)}
    async with Upstream() as upstream, running(**flags, upstream_endpoint=upstream.endpoint) as processor:
        await export(processor.target, traces(trace(1)).body)
        assert len(rollups_of(mortal.client)) == 1
        mortal.server.kill()
        await export(processor.target, traces(trace(2)).body)
        assert len(upstream.received) == 2
        assert processor.service.telemetry.counters.store_missed.total() == 1


@pytest.mark.parametrize(
    ("path", "password", "says"),
    [
        ("nowhere", "open sesame", r"store migrate --store clickhouse://default@127\.0\.0\.1:\d+/nowhere makes them"),
        ("default", "open sesame", r"default has no otel_traces, .* and neatlogs_overrides_mv; run: .* store migrate"),
        ("default", "wrong", r"does not let default in, or not so far \(error 516\); see --store-password-file"),
    ],
    ids=["no database", "no tables", "a wrong password"],
)
async def test_it_does_not_start_with_what_somebody_has_to_change(
    guarded: ClickHouseServer, tmp_path: Path, path: str, password: str, says: str
) -> None:
    """One line says what to do, and nothing listens."""
    file = tmp_path / "password"
    file.write_text(password)
    with pytest.raises(ConfigError, match=says):
        async with running(store=guarded.url(path), store_password_file=str(file)):
            pass


async def test_migrate_makes_it_ready(guarded: ClickHouseServer) -> None:
    """The command that the message names is all that is needed."""
    environ = {"CLICKHOUSE_PASSWORD": guarded.password}
    finished = await run("store", "migrate", "--store", guarded.url("made_by_hand"), environ=environ)
    assert finished.code == 0
    assert finished.stdout.startswith("made in made_by_hand: otel_traces, ")
    listen = ("--grpc-listen", "127.0.0.1:0")
    async with program(*listen, "--store", guarded.url("made_by_hand"), environ=environ) as processor:
        await processor.ready()


def test_tls_trusts_the_authority_that_is_named_and_no_other(tmp_path: Path) -> None:
    """clickhouses:// is checked against --store-ca-file; a certificate that somebody else signed is not accepted."""
    ours, others = Authority(tmp_path, "ours"), Authority(tmp_path, "others")
    with clickhouse_server(tls=ours.issue("server", "127.0.0.1")) as server:
        address = ClickHouseAddress("127.0.0.1", server.port, tls=True)
        with contextlib.closing(connect(ClickHouseLogin(address, authorities=ours.certificate))) as client:
            assert client.command("SELECT 1") == 1
        with pytest.raises(ProcessorError, match="cannot be reached"):
            commands.look(ClickHouseLogin(address, authorities=others.certificate))


async def test_requests_do_not_wait_for_those_that_cannot_come(database: Database) -> None:
    """When half of all requests that there may be wait, they go in: whoever waits for an answer sends nothing."""
    store = ClickHouseStore(
        database.login,
        policy=POLICY,
        batch_time=3600,
        most_requests=4,
        telemetry=Telemetry(),
        chance=lambda: 0.5,
    )
    store.start()
    try:
        sending = asyncio.gather(*[store.send(traces(trace(number))) for number in range(4)])
        assert await asyncio.wait_for(sending, 60) == [b""] * 4
    finally:
        await store.close()
    assert database.number("SELECT count() FROM otel_traces") == 4


@pytest.mark.parametrize(
    ("address", "password", "warned"),
    [
        (ClickHouseAddress("db.example.com", 8123), "secret", True),
        (ClickHouseAddress("db.example.com", 8123), "", False),
        (ClickHouseAddress("db.example.com", 8443, tls=True), "secret", False),
        (ClickHouseAddress("localhost", 8123), "secret", False),
    ],
)
def test_a_password_that_others_could_hear_is_noticed(address: ClickHouseAddress, password: str, warned: bool) -> None:
    """It leaves the machine without TLS: the log says so at the start."""
    assert ClickHouseLogin(address, password).can_be_overheard is warned
