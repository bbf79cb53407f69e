"""The processor with a store: alone, beside an upstream, with a queue; killed, stopped, and asked how it is."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import grpc.aio
import httpx
import pytest

from neatlogs_processor.core.request import Request
from neatlogs_processor.errors import ProcessorError, StoreUnavailableError
from neatlogs_processor.store.beside import BEST_EFFORT_SECONDS, StoreBeside
from neatlogs_processor.store.files import open_reader, open_writer
from neatlogs_processor.telemetry import Telemetry
from support.processor import Running, program, run, running, until
from support.queue_parts import Destination, rejected, unavailable
from support.store_contents import assert_sound, rollups_of, spans_of
from support.store_parts import trace, traces
from support.upstream import Reply, Upstream, export, refused

TORTURE = Path(__file__).parents[2] / "torture"
FLAGS = ("--grpc-listen", "127.0.0.1:0", "--http-listen", "none", "--admin-listen", "none")


async def ready(one: Running) -> tuple[int, str]:
    """Ask the admin port whether requests are taken."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://{one.admin}/readyz")
    return answer.status_code, answer.text.strip()


def written_by(one: Running) -> dict[str, int]:
    """How many spans the store has written, found there already, and missed."""
    counters = one.service.telemetry.counters
    return {
        "written": counters.store_spans.get("written"),
        "duplicate": counters.store_spans.get("duplicate"),
        "missed": counters.store_missed.total(),
    }


class Unwell:
    """A store that does not take what it is given."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.given_up = 0

    async def send(self, request: Request) -> bytes:
        """See `Destination.send`."""
        if self.error is not None:
            raise self.error
        try:
            await asyncio.Event().wait()
        finally:
            self.given_up += 1
        raise AssertionError(request)


async def test_without_an_upstream_the_store_answers(tmp_path: Path) -> None:
    """A processor with nothing but a store acknowledges what is in it, whatever else it prints."""
    path = tmp_path / "traces.db"
    async with running(store=str(path), console=True) as one:
        assert await export(one.target, traces(trace(1, spans=3)).body) == b""
        assert written_by(one) == {"written": 3, "duplicate": 0, "missed": 0}
        assert spans_of(path).total() == 3
        assert await ready(one) == (200, "ready")


async def test_a_trace_goes_to_both(tmp_path: Path) -> None:
    """With an upstream and a store the answer is the upstream's, and comes when both have the request."""
    path = tmp_path / "traces.db"
    async with (
        Upstream(Reply(response=b"\x0a\x02\x12\x00")) as upstream,
        running(store=str(path), upstream_endpoint=upstream.endpoint) as one,
    ):
        body = traces(trace(1, spans=3)).body
        assert await export(one.target, body) == b"\x0a\x02\x12\x00"
        assert upstream.bodies == [body]
        assert spans_of(path).total() == 3


async def test_a_retry_after_the_upstream_failed_does_not_double(tmp_path: Path) -> None:
    """A request that the upstream refused is in the store already; sent again it goes on and counts once."""
    path = tmp_path / "traces.db"
    async with (
        Upstream(Reply(code=grpc.StatusCode.INTERNAL), Reply()) as upstream,
        running(store=str(path), upstream_endpoint=upstream.endpoint) as one,
    ):
        body = traces(trace(1, spans=3)).body
        assert (await refused(one.target, body)).code() is grpc.StatusCode.INTERNAL
        assert await export(one.target, body) == b""
        assert len(upstream.bodies) == 2
        assert written_by(one) == {"written": 3, "duplicate": 3, "missed": 0}
    assert rollups_of(path)[trace(1)[0].span.trace_id]["spans"] == 3
    assert_sound(path)


async def test_a_queue_beside_a_store(tmp_path: Path) -> None:
    """With a queue the answer means that the trace is in the store and in the queue; the upstream gets it later."""
    path = tmp_path / "traces.db"
    async with (
        Upstream() as upstream,
        running(store=str(path), upstream_endpoint=upstream.endpoint, queue_dir=str(tmp_path / "queue")) as one,
    ):
        body = traces(trace(1, spans=3)).body
        assert await export(one.target, body) == b""
        assert spans_of(path).total() == 3
        await upstream.wait_for(1)
        assert upstream.bodies == [body]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(StoreUnavailableError("full", retry_after=1.0), "store_unavailable"), (ZeroDivisionError(), "internal")],
    ids=["refuses", "has a bug"],
)
async def test_a_store_that_is_best_effort_costs_the_upstream_nothing(
    error: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What the store does not take goes on all the same: counted, and logged with the flag that would refuse it."""
    upstream, telemetry = Destination(), Telemetry()
    beside = StoreBeside(Unwell(error), upstream, required=False, telemetry=telemetry)
    one = traces(trace(1, spans=3))
    assert await beside.send(one) == b""
    assert upstream.accepted == [one.body]
    assert telemetry.counters.store_missed.get(reason) == 3
    assert "--store-required" in caplog.text


async def test_a_store_that_hangs_is_not_waited_for() -> None:
    """A store that is not required may keep a request from the upstream for two seconds, and not for its lock's ten."""
    assert BEST_EFFORT_SECONDS == 2.0
    upstream, telemetry, store = Destination(), Telemetry(), Unwell(None)
    beside = StoreBeside(store, upstream, required=False, telemetry=telemetry)
    await asyncio.wait_for(beside.send(traces(trace(1, spans=3))), 60)
    assert len(upstream.accepted) == store.given_up == 1
    assert telemetry.counters.store_missed.get("slow") == 3


@pytest.mark.parametrize("error", [StoreUnavailableError("full", retry_after=1.0), ZeroDivisionError()])
async def test_a_required_store_decides(error: Exception) -> None:
    """With `--store-required` what the store did not take is refused, and does not reach the upstream."""
    upstream, telemetry = Destination(), Telemetry()
    beside = StoreBeside(Unwell(error), upstream, required=True, telemetry=telemetry)
    with pytest.raises(type(error)):
        await beside.send(traces(trace(1)))
    assert upstream.tried == []
    assert telemetry.counters.store_missed.total() == 0


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize("error", [unavailable(), rejected()])
async def test_the_upstream_s_refusal_is_the_answer(tmp_path: Path, required: bool, error: ProcessorError) -> None:
    """Whether the store has it or not, a request that the upstream refused is refused, as the upstream said."""

    def refuse(_: bytes) -> bytes:
        raise error

    kept = Destination()
    beside = StoreBeside(kept, Destination(refuse), required=required, telemetry=Telemetry())
    with pytest.raises(type(error)):
        await beside.send(traces(trace(1)))
    assert len(kept.accepted) == 1


@pytest.mark.parametrize("required", [True, False])
async def test_readiness_follows_a_store_that_is_needed(tmp_path: Path, required: bool) -> None:
    """While a store refuses that requests depend on, no more of them should come; a best-effort store is no reason."""
    path = tmp_path / "traces.db"
    async with (
        Upstream() as upstream,
        running(store=str(path), upstream_endpoint=upstream.endpoint, store_required=required) as one,
    ):
        body = traces(trace(1)).body
        path.rename(tmp_path / "away.db")
        if required:
            error = await refused(one.target, body)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "was removed or replaced" in (error.details() or "")
            assert "google.rpc.retryinfo-bin" in {key for key, _ in error.trailing_metadata()}
            status, reason = await ready(one)
            assert status == 503
            assert "the store did not take it" in reason
        else:
            assert await export(one.target, body) == b""
            assert (await ready(one))[0] == 200
            assert written_by(one)["missed"] == 1
        (tmp_path / "away.db").rename(path)
        assert await export(one.target, body) == b""
        assert (await ready(one))[0] == 200


@pytest.mark.parametrize("read_elsewhere", [False, True], ids=["by its own page", "by another process"])
async def test_a_stopped_store_is_its_file_alone(tmp_path: Path, read_elsewhere: bool) -> None:
    """After an orderly stop the file alone is a copy of everything, although somebody has read it."""
    path = tmp_path / "traces.db"
    with contextlib.ExitStack() as others:
        async with running(store=str(path)) as one, httpx.AsyncClient() as client:
            await export(one.target, traces(trace(1, user="ali")).body)
            answer = await client.get(f"http://{one.admin}/api/traces", params={"last": "all"})
            assert [row["end_user"] for row in answer.json()["rows"]] == ["ali"]
            if read_elsewhere:
                others.enter_context(contextlib.closing(open_reader(path))).execute("SELECT * FROM traces").fetchall()
        copy = Path(shutil.copy(path, tmp_path / "copy.db"))
        assert [rollup["end_user"] for rollup in rollups_of(copy).values()] == ["ali"]


async def test_a_page_on_a_store_that_another_process_writes(tmp_path: Path) -> None:
    """A second processor on the same file shows what the first one takes, and both may write."""
    path = tmp_path / "traces.db"
    async with running(store=str(path)) as writer, running(store=str(path)) as reader, httpx.AsyncClient() as client:
        for number in range(3):
            await export(writer.target, traces(trace(number, user=f"user {number}")).body)
            await export(reader.target, traces(trace(number, spans=2)).body)
            answer = await client.get(f"http://{reader.admin}/api/traces", params={"last": "all"})
            found = {(row["end_user"], row["spans"]) for row in answer.json()["rows"]}
            assert (f"user {number}", 2) in found
            assert len(found) == number + 1
    assert_sound(path)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--store-max-size", "1KiB"], "--store-max-size: '1KiB' cannot be used"),
        (["--store-max-age", "0s"], "--store-max-age: '0s' cannot be used"),
        (["--store-required"], "--store-required is for a store beside an upstream"),
        (["--store", "/dev/null/traces.db"], "--store: cannot write /dev/null/traces.db"),
    ],
)
async def test_settings_that_cannot_work_are_refused(tmp_path: Path, flags: list[str], says: str) -> None:
    """A mistake about the store is one line and exit code 2, and leaves no file behind."""
    path = tmp_path / "traces.db"
    finished = await run(*FLAGS, "--store", str(path), *flags)
    assert finished.code == 2
    assert says in finished.stderr
    assert finished.stderr.count("\n") == 0
    assert not path.exists()


async def test_sigterm_under_load_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """While clients send, the processor is told to stop: it ends well, and the store has what it acknowledged."""
    path = tmp_path / "traces.db"
    acknowledged: list[int] = []

    async def client(first: int, channel: grpc.aio.Channel) -> None:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
        )
        number = first
        try:
            while True:
                await call(traces(trace(number, spans=5)).body, timeout=30)
                acknowledged.append(number)
                number += 1
        except grpc.aio.AioRpcError:
            return

    async with (
        program(*FLAGS, "--store", str(path)) as started,
        grpc.aio.insecure_channel(await started.ready()) as channel,
    ):
        clients = [asyncio.ensure_future(client(10_000 * number, channel)) for number in range(8)]
        await until(lambda: len(acknowledged) > 50)
        started.kill(signal.SIGTERM)
        finished = await started.end()
        await asyncio.gather(*clients)
    assert finished.code == 0, finished.stderr
    # The log was moved into the file: what is there is the store itself and its reserve.
    assert sorted(file.name for file in tmp_path.iterdir()) == ["traces.db", "traces.db-reserve"]
    places = spans_of(path)
    assert all(one.place in places for number in acknowledged for one in trace(number, spans=5))
    assert_sound(path)


def test_kill_9_under_load_loses_and_doubles_nothing() -> None:
    """Killed at random moments: every acknowledged span is there once, the database whole, each rollup the sum."""
    finished = subprocess.run(
        [sys.executable, TORTURE / "kill9.py", "--mode", "store", "--kills", "4"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    figures = re.search(r"(\d+) acknowledged, (\d+) received, 0 lost, 0 duplicated", finished.stdout)
    assert figures is not None, finished.stdout
    assert int(figures[1]) > 0


async def test_a_store_that_is_written_elsewhere_makes_clients_wait_and_then_come_again(tmp_path: Path) -> None:
    """While another process holds the store, requests wait; when it lets go in time they are acknowledged."""
    path = tmp_path / "traces.db"
    async with running(store=str(path)) as one:
        other = open_writer(path)
        other.execute("BEGIN IMMEDIATE")
        sending = asyncio.ensure_future(export(one.target, traces(trace(1)).body))
        await asyncio.wait([sending], timeout=0.2)
        assert not sending.done()
        other.execute("ROLLBACK")
        other.close()
        assert await sending == b""
