"""What the durable queue promises to whoever sends into it."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from neatlogs_processor.core.policy import EndUserPolicy, Override, Place
from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.errors import ConfigError, OverloadedError
from neatlogs_processor.queue.rows import read_findings, write_findings
from support.processor import until
from support.queue_parts import Clock, Destination, queue_in, rejected, traces, unavailable
from support.spans import child, request, root


async def test_what_was_acknowledged_is_delivered_as_it_was(tmp_path: Path) -> None:
    """The same bytes reach the upstream, with what the rule found, for all three signals."""
    enforced = enforce_traces(request(root(), child(neatlogs__end_user__id="x")), EndUserPolicy())
    sent = [
        Request(Signal.TRACES, enforced.body, enforced=enforced),
        Request(Signal.METRICS, b"metrics"),
        Request(Signal.LOGS, b""),
    ]
    async with queue_in(tmp_path / "queue") as parts:
        await parts.send(*sent)
        await parts.emptied()
    arrived = {one.signal: one for one in parts.destination.requests}
    assert {signal: one.body for signal, one in arrived.items()} == {one.signal: one.body for one in sent}
    found = arrived[Signal.TRACES].enforced
    assert found is not None
    assert found.counts == enforced.counts
    assert found.overrides == enforced.overrides
    assert len(found.overrides) == 1
    assert parts.telemetry.counters.queue_spans.get("delivered") == 2


async def test_credentials_of_callers_are_not_kept(tmp_path: Path) -> None:
    """No header of a request is written to the disk or reaches the upstream from there."""
    async with queue_in(tmp_path / "queue", started=False) as parts:
        await parts.send(traces())
        files = b"".join(path.read_bytes() for path in (tmp_path / "queue").iterdir())
        parts.queue.start()
        await parts.emptied()
    assert b"root" in files
    assert b"hunter2" not in files
    assert parts.destination.requests[0].headers == ()


async def test_nobody_else_can_read_the_queue(tmp_path: Path) -> None:
    """The directory is 0700 and every file in it 0600, whatever they were before."""
    path = tmp_path / "queue"
    path.mkdir(mode=0o755)
    async with queue_in(path, started=False) as parts:
        await parts.send(traces())
        modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.iterdir()}
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert set(modes.values()) == {0o600}
    assert {"queue.v1.sqlite", "queue.v1.sqlite-wal", "lock", "reserve"} <= modes.keys()


async def test_a_restart_delivers_what_an_earlier_run_left(tmp_path: Path) -> None:
    """Requests that were acknowledged and not delivered go out after the next start, in order of arrival."""
    async with queue_in(tmp_path / "queue", Destination(_down)) as parts:
        await parts.send(*(traces(f"request {number}") for number in range(20)))
        assert parts.queue.state.requests == 20
    async with queue_in(tmp_path / "queue", workers=1) as again:
        await again.emptied()
    assert again.destination.accepted == parts.sent


async def test_a_full_queue_refuses_with_a_delay_and_takes_requests_again(tmp_path: Path) -> None:
    """Past the cap a request is refused retryably, nothing is dropped, and delivery makes room."""
    destination = Destination()
    destination.open.clear()
    async with queue_in(tmp_path / "queue", destination, max_bytes=20_000) as parts:
        refused = await parts.fill(traces(padding=1000))
        assert "--queue-max-bytes" in str(refused)
        assert 1.0 <= refused.retry_after <= 2.0
        assert parts.queue.state.full
        assert 10_000 < parts.queue.state.size <= 20_000
        destination.open.set()
        await parts.emptied()
        await parts.send(traces(padding=1000))
        await parts.emptied()
    assert sorted(destination.accepted) == sorted(parts.sent)


async def test_requests_that_arrive_together_do_not_pass_the_cap_together(tmp_path: Path) -> None:
    """What is still on its way to the disk counts."""
    async with queue_in(tmp_path / "queue", Destination(_down), max_bytes=10_000) as parts:
        results = await asyncio.gather(
            *(parts.queue.send(traces(padding=1000)) for _ in range(50)), return_exceptions=True
        )
        assert parts.queue.state.size <= 10_000
    assert {type(result) for result in results} == {bytes, OverloadedError}


async def test_a_lowered_cap_refuses_but_drops_nothing(tmp_path: Path) -> None:
    """A restart with a smaller cap delivers everything that an earlier run acknowledged."""
    async with queue_in(tmp_path / "queue", Destination(_down)) as parts:
        await parts.send(*(traces(f"{number}", 1000) for number in range(20)))
    destination = Destination()
    destination.open.clear()
    async with queue_in(tmp_path / "queue", destination, max_bytes=5_000) as again:
        with pytest.raises(OverloadedError):
            await again.send(traces())
        destination.open.set()
        await again.emptied()
        await again.send(traces())
        await again.emptied()
    assert set(parts.sent) <= set(destination.accepted)


async def test_what_is_too_old_is_dropped_counted_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Age takes requests out of the queue, never silently, and the younger ones stay."""
    clock = Clock()
    async with queue_in(tmp_path / "queue", Destination(_down), max_age=1.0, monotonic=clock, chance=0.9) as parts:
        await parts.send(traces("old"), traces("old, too"))
        clock.now = 0.9
        await parts.send(traces("young"))
        clock.now = 1.5
        await until(lambda: parts.left("expired") == 2)
        await until(lambda: parts.queue.state.requests == 1)
        assert parts.telemetry.counters.queue_spans.get("expired") == 2
    assert "queued requests dropped: older than --queue-max-age" in caplog.text


async def test_a_wall_clock_that_jumps_expires_nothing(tmp_path: Path) -> None:
    """While the processor runs, age follows the monotonic clock."""
    wall, clock = Clock(1_000_000.0), Clock()
    async with queue_in(tmp_path / "queue", Destination(_down), max_age=60.0, wall=wall, monotonic=clock) as parts:
        await parts.send(traces())
        wall.now += 10_000_000.0
        clock.now += 1.0
        await parts.send(traces())
        await until(lambda: len(parts.destination.requests) > 2)
        assert parts.queue.state.oldest_age == 1.0
        assert parts.left("expired") == 0


async def test_a_wall_clock_that_was_set_back_gives_no_negative_age(tmp_path: Path) -> None:
    """After a restart in what looks like the past, time goes on from the newest request."""
    async with queue_in(tmp_path / "queue", Destination(_down), wall=Clock(2_000.0), monotonic=Clock()) as parts:
        await parts.send(traces("before"))
    clock = Clock()
    async with queue_in(
        tmp_path / "queue", Destination(_down), max_age=1.0, wall=Clock(1_000.0), monotonic=clock, chance=0.9
    ) as again:
        await until(lambda: len(again.destination.requests) > 0)
        assert again.queue.state.oldest_age == 0.0
        await again.send(traces("after"))
        clock.now = 2.0
        await again.emptied()
        assert again.left("expired") == 2


async def test_an_upstream_that_refuses_for_good_makes_a_dead_letter(tmp_path: Path) -> None:
    """The refused request is kept aside, counted, and the others go on; it survives a restart."""
    async with queue_in(tmp_path / "queue", Destination(_no_bad_ones)) as parts:
        await parts.send(traces("good"), traces("bad"), traces("good, too"))
        await parts.emptied()
        assert parts.left("rejected") == 1
    async with queue_in(tmp_path / "queue") as again:
        assert again.queue.state.dead_requests == 1
        await again.send(traces("another"))
        await again.emptied()
    assert len(again.destination.requests) == 1


async def test_dead_letters_are_bounded_and_the_oldest_is_dropped_with_a_count(tmp_path: Path) -> None:
    """Past the cap of dead letters the oldest makes room; that, too, is counted."""
    async with queue_in(tmp_path / "queue", Destination(_no), max_dead_bytes=10_000) as parts:
        await parts.send(*(traces(f"{number}", 1000) for number in range(20)))
        dropped = parts.telemetry.counters.dead_letters_dropped
        await until(lambda: parts.left("rejected") == 20 and parts.queue.state.dead_requests + dropped.total() == 20)
        assert parts.queue.state.dead_size <= 10_000
        assert parts.queue.state.dead_requests > 0
        assert dropped.get("traces") > 0


async def test_a_partial_success_is_accepted_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What the upstream took in part is not sent again; how much it refused is counted and logged."""
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = 3
    response.partial_success.error_message = "hunter2"
    async with queue_in(tmp_path / "queue", Destination(lambda _: response.SerializeToString())) as parts:
        await parts.send(traces())
        await parts.emptied()
        assert parts.left("partial") == 1
        assert parts.telemetry.counters.partial_rejections.get("traces") == 3
    assert len(parts.destination.requests) == 1
    assert r"refused 3 items" in caplog.text
    # An upstream's words may quote a payload.
    assert "hunter2" not in caplog.text


async def test_a_client_that_goes_away_does_not_undo_the_commit(tmp_path: Path) -> None:
    """A request whose caller is cancelled while it is written is delivered all the same, and counted right."""
    async with queue_in(tmp_path / "queue") as parts:
        sending = asyncio.create_task(parts.queue.send(traces()))
        await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await until(lambda: parts.left("delivered") == 1)
        await parts.emptied()


@pytest.mark.parametrize("segment_bytes", [0, 100_000], ids=["no journal", "small journal"])
async def test_a_full_disk_refuses_retryably_and_deletes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, segment_bytes: int
) -> None:
    """Where SQLite finds no room, requests are refused, what is there is delivered and deleted, and then it goes on."""
    destination = Destination()
    destination.open.clear()
    async with queue_in(tmp_path / "queue", destination, max_pages=20, segment_bytes=segment_bytes) as parts:
        assert "disk is full" in str(await parts.fill(traces(padding=20_000)))
        assert parts.queue.state.full
        kept = parts.queue.state.requests
        assert kept == len(parts.sent) > 2
        destination.open.set()
        await parts.emptied()
        await parts.send(traces(padding=20_000))
        await parts.emptied()
    assert sorted(destination.accepted) == sorted(parts.sent)
    assert "disk is full" in caplog.text


@pytest.mark.parametrize("segment_bytes", [0, 100_000], ids=["no journal", "small journal"])
async def test_a_full_disk_takes_the_small_request_of_a_group_apart(tmp_path: Path, segment_bytes: int) -> None:
    """Requests that arrive together with one that finds no room are refused, never acknowledged without being kept."""
    path = tmp_path / "queue"
    async with queue_in(path, Destination(_down), max_pages=20, segment_bytes=segment_bytes) as parts:
        bodies = [traces(f"{number}", 20_000) for number in range(40)]
        results = await asyncio.gather(*(parts.queue.send(one) for one in bodies), return_exceptions=True)
        assert parts.queue.state.requests == results.count(b"")
    async with queue_in(path, max_pages=20, segment_bytes=segment_bytes) as again:
        await again.emptied()
    acknowledged = [one.body for one, result in zip(bodies, results, strict=True) if result == b""]
    assert sorted(again.destination.accepted) == sorted(acknowledged)


async def test_two_processors_cannot_share_a_directory(tmp_path: Path) -> None:
    """The second one is told which process holds it."""
    async with queue_in(tmp_path / "queue"):
        with pytest.raises(ConfigError, match=rf"in use by another process \(pid {os.getpid()}\)"):
            async with queue_in(tmp_path / "queue"):
                pass
    async with queue_in(tmp_path / "queue"):
        pass


def test_what_the_rule_found_survives_being_written_down() -> None:
    """Names of any kind come back as they were, and other text is refused."""
    enforced = enforce_traces(request(root()), EndUserPolicy())
    enforced.overrides.append(Override(b"\x00\xff", b"", "s\udcff\n", "名", Place.SCOPE, 'k"'))
    enforced.overrides_not_reported = 7
    enforced.counts.overrides[Place.SCOPE] = 8
    assert read_findings(write_findings(enforced), enforced.body) == enforced
    assert read_findings(write_findings(None), b"") is None
    for broken in ("{}", "[]", "nonsense", '{"overrides": 1}'):
        with pytest.raises(ValueError, match=r".*"):
            read_findings(broken, b"")


def _down(_: bytes) -> bytes:
    raise unavailable()


def _no(_: bytes) -> bytes:
    raise rejected()


def _no_bad_ones(body: bytes) -> bytes:
    if b"bad" in body:
        raise rejected("bad request")
    return b""
