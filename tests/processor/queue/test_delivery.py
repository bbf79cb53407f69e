"""How the durable queue delivers: order, failures, waiting, shutdown."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.errors import MalformedOtlpError
from neatlogs_processor.queue.lane import MAX_RETRY_AFTER, rejected_items
from support.processor import until
from support.queue_parts import Clock, Destination, queue_in, rejected, traces, unavailable


async def test_requests_are_delivered_in_order_of_arrival(tmp_path: Path) -> None:
    """With one worker the upstream sees them in the order in which they were acknowledged."""
    async with queue_in(tmp_path / "queue", workers=1) as parts:
        await parts.send(*(traces(f"{number}") for number in range(300)))
        await parts.emptied()
    assert parts.destination.accepted == parts.sent


async def test_at_most_so_many_are_sent_at_the_same_time(tmp_path: Path) -> None:
    """Concurrency is bounded by the workers, and used."""
    destination = Destination()
    destination.open.clear()
    async with queue_in(tmp_path / "queue", destination, workers=3) as parts:
        await parts.send(*(traces(f"{number}") for number in range(10)))
        await until(lambda: destination.busy == 3)
        destination.open.set()
        await parts.emptied()
    assert destination.most_busy == 3


@pytest.mark.parametrize("workers", [1, 2, 4])
async def test_requests_that_always_fail_do_not_block_the_others(tmp_path: Path, workers: int) -> None:
    """More requests than workers that are refused for now, again and again, and every other one comes through."""
    async with queue_in(tmp_path / "queue", Destination(_poison), workers=workers, chance=0.01) as parts:
        await parts.send(*(traces("poison") for _ in range(6)))
        await parts.send(*(traces(f"{number}") for number in range(100)))
        await until(lambda: parts.queue.state.requests == 6)
        assert len(parts.destination.accepted) == 100
        assert parts.left("delivered") == 100


async def test_an_upstream_that_is_down_is_tried_with_one_request_at_a_time(tmp_path: Path) -> None:
    """When as many tries as there are workers have failed, the others wait until one comes through."""
    clock = Clock()
    destination = Destination(_down)
    async with queue_in(tmp_path / "queue", destination, workers=4, chance=0.5, monotonic=clock) as parts:
        destination.open.clear()
        await parts.send(*(traces(f"{number}") for number in range(20)))
        await until(lambda: destination.busy == 4)
        destination.open.set()
        await until(lambda: parts.telemetry.counters.retries.total() == 4)
        destination.open.clear()
        assert len(destination.requests) == 4
        clock.now = 60.0
        await parts.send(traces("another"))
        await until(lambda: destination.busy == 1)
        destination.answer = lambda _: b""
        destination.open.set()
        clock.now = 600.0
        await parts.send(traces("and another"))
        await parts.emptied()
    assert len(destination.accepted) == 22


async def test_the_upstream_s_delay_is_kept(tmp_path: Path) -> None:
    """After RetryInfo or Retry-After nothing is sent before the delay is over, and an absurd one is cut."""
    clock = Clock()
    answers = iter([unavailable(retry_after=30.0), unavailable(retry_after=1e9)])

    def busy(_: bytes) -> bytes:
        for error in answers:
            raise error
        return b""

    async with queue_in(tmp_path / "queue", Destination(busy), workers=1, monotonic=clock) as parts:
        await parts.send(traces("first"))
        await until(lambda: parts.telemetry.counters.retries.total() == 1)
        clock.now = 29.0
        await parts.send(traces("second"))
        assert len(parts.destination.requests) == 1
        clock.now = 30.5
        await parts.send(traces("third"))
        await until(lambda: parts.telemetry.counters.retries.total() == 2)
        clock.now = 30.5 + MAX_RETRY_AFTER - 1
        await parts.send(traces("fourth"))
        assert len(parts.destination.requests) == 2
        clock.now = 30.5 + MAX_RETRY_AFTER + 1
        await parts.send(traces("fifth"))
        await parts.emptied()
    assert len(parts.destination.accepted) == 5


@pytest.mark.parametrize("code", [7, 16])
async def test_a_wrong_key_makes_no_dead_letters(tmp_path: Path, code: int) -> None:
    """PERMISSION_DENIED and UNAUTHENTICATED say nothing about the request: it waits for the right key."""
    destination = Destination()
    refused = iter([rejected("who are you?", code)] * 3)

    def guarded(_: bytes) -> bytes:
        for error in refused:
            raise error
        return b""

    destination.answer = guarded
    async with queue_in(tmp_path / "queue", destination) as parts:
        await parts.send(traces())
        await parts.emptied()
        assert parts.left("delivered") == 1
        assert parts.queue.state.dead_requests == 0


async def test_signals_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """An upstream that takes no metrics for now still gets its traces."""

    class OnlyTraces(Destination):
        async def send(self, request: Request) -> bytes:
            if request.signal is Signal.METRICS:
                raise unavailable(retry_after=3600.0)
            return await super().send(request)

    async with queue_in(tmp_path / "queue", OnlyTraces()) as parts:
        for _ in range(5):
            await parts.send(Request(Signal.METRICS, b"m"), traces())
        await until(lambda: parts.left("delivered") == 5)
        await until(lambda: parts.queue.state.requests == 5)


async def test_a_bug_in_delivery_loses_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An exception that nobody expected is logged and counted, and the request is tried again."""
    failures = iter([ZeroDivisionError("u_812")])

    def buggy(_: bytes) -> bytes:
        for error in failures:
            raise error
        return b""

    async with queue_in(tmp_path / "queue", Destination(buggy)) as parts:
        await parts.send(traces())
        await parts.emptied()
        assert parts.left("delivered") == 1
        assert parts.telemetry.counters.failures.total() == 1
    assert "ZeroDivisionError" in caplog.text
    assert "u_812" not in caplog.text


async def test_any_permanent_error_ends_in_a_dead_letter(tmp_path: Path) -> None:
    """A refusal need not come from the upstream to be final."""

    def malformed(_: bytes) -> bytes:
        raise MalformedOtlpError("not OTLP")

    async with queue_in(tmp_path / "queue", Destination(malformed)) as parts:
        await parts.send(traces())
        await parts.emptied()
        assert parts.left("rejected") == 1


async def test_what_is_being_sent_does_not_expire(tmp_path: Path) -> None:
    """A request that gets old while the upstream is thinking about it is delivered, and counted once."""
    destination = Destination()
    destination.open.clear()
    clock = Clock()
    async with queue_in(tmp_path / "queue", destination, workers=1, max_age=1.0, monotonic=clock) as parts:
        await parts.send(traces("being sent"), traces("waiting"))
        await until(lambda: destination.busy == 1)
        clock.now = 5.0
        await until(lambda: parts.left("expired") == 1)
        destination.open.set()
        await parts.emptied()
        assert parts.left("delivered") == 1
        assert parts.left("expired") == 1
    assert destination.accepted == parts.sent[:1]


async def test_a_shutdown_lets_deliveries_finish_and_keeps_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is being sent may finish within the grace; what waits is left for the next run, and that is said."""
    caplog.set_level("INFO")
    destination = Destination()
    destination.open.clear()
    async with queue_in(tmp_path / "queue", destination, workers=1, grace=30.0) as parts:
        await parts.send(traces("first"), traces("second"))
        await until(lambda: destination.busy == 1)
        asyncio.get_running_loop().call_later(0.1, destination.open.set)
    assert destination.accepted == parts.sent[:1]
    assert "the queue holds: requests 1," in caplog.text
    async with queue_in(tmp_path / "queue") as again:
        await again.emptied()
    assert again.destination.accepted == parts.sent[1:]
    assert "of an earlier run" in caplog.text


async def test_a_delivery_that_outlasts_the_grace_is_made_again(tmp_path: Path) -> None:
    """A shutdown is bounded: a try that takes longer is given up, and the request stays."""
    destination = Destination()
    destination.open.clear()
    async with queue_in(tmp_path / "queue", destination, grace=0.05) as parts:
        await parts.send(traces())
        await until(lambda: destination.busy == 1)
    async with queue_in(tmp_path / "queue") as again:
        await again.emptied()
    assert again.destination.accepted == parts.sent


async def test_a_shutdown_does_not_wait_for_a_retry(tmp_path: Path) -> None:
    """Waits between tries end at once; how often a request was tried is remembered."""
    async with queue_in(tmp_path / "queue", Destination(_down), chance=0.9, grace=3600.0, monotonic=Clock()) as parts:
        await parts.send(traces())
        await until(lambda: parts.telemetry.counters.retries.total() == 1)
    async with queue_in(tmp_path / "queue", started=False) as again:
        (entry,) = await again.queue.waiting(Signal.TRACES, after=0, limit=10)
    assert entry.attempts == 1
    assert entry.error == "down"


@pytest.mark.parametrize("response", [b"", b"\xff\xff", b"\x0a\x00"])
def test_a_response_without_rejections_is_a_complete_success(response: bytes) -> None:
    """Whatever an upstream writes beside its OK, it has accepted."""
    assert rejected_items(response) == 0


def _down(_: bytes) -> bytes:
    raise unavailable()


def _poison(body: bytes) -> bytes:
    if b"poison" in body:
        raise unavailable()
    return b""
