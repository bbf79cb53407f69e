"""The durable queue without a processor around it, and an upstream that does what it is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.errors import OverloadedError, UpstreamRejectedError, UpstreamUnavailableError
from neatlogs_processor.queue.durable import DurableQueue, QueueLimits
from neatlogs_processor.queue.events import QueueEvents
from neatlogs_processor.queue.journal import SEGMENT_BYTES
from neatlogs_processor.queue.lane import LaneSettings
from neatlogs_processor.telemetry import Telemetry
from support.processor import until
from support.spans import request, root

DAY = 24 * 3600.0
MIB = 2**20


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Destination:
    """Accepts everything, except what it is told to treat otherwise.

    Attributes:
        requests: All tries, in order.
        accepted: The bodies that were accepted, in order.
        answer: Decides about a body: returns the response, or raises.
        open: While it is not set, tries wait.
        busy: How many tries wait at the moment.
        most_busy: How many waited at the same time, at most.
    """

    def __init__(self, answer: Callable[[bytes], bytes] = lambda _: b"") -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.accepted: list[bytes] = []
        self.open = asyncio.Event()
        self.open.set()
        self.busy = 0
        self.most_busy = 0

    @property
    def tried(self) -> list[bytes]:
        """The bodies of all tries, in order."""
        return [one.body for one in self.requests]

    async def send(self, request: Request) -> bytes:
        """See `Sender.send`."""
        self.requests.append(request)
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            await self.open.wait()
        finally:
            self.busy -= 1
        response = self.answer(request.body)
        self.accepted.append(request.body)
        return response


def unavailable(retry_after: float | None = None) -> UpstreamUnavailableError:
    """The upstream is down."""
    return UpstreamUnavailableError("down", grpc_code=14, retry_after=retry_after)


def rejected(message: str = "no", code: int = 3) -> UpstreamRejectedError:
    """The upstream will never take this."""
    return UpstreamRejectedError(message, grpc_code=code)


def traces(name: str = "root", padding: int = 0) -> Request:
    """A trace request after the rule, with one span."""
    body = request(root(name + "." * padding))
    return Request(
        Signal.TRACES, body, headers=(("x-api-key", "hunter2"),), enforced=enforce_traces(body, EndUserPolicy())
    )


@dataclass
class Parts:
    """A queue and what is around it."""

    queue: DurableQueue
    destination: Destination
    telemetry: Telemetry
    sent: list[bytes] = field(default_factory=list)

    async def send(self, *requests: Request) -> None:
        """Put requests into the queue, one after the other."""
        for one in requests:
            assert await self.queue.send(one) == b""
            self.sent.append(one.body)

    async def fill(self, one: Request) -> OverloadedError:
        """Put the same request into the queue until it is refused, and return the error."""
        with pytest.raises(OverloadedError) as refused:
            await self._send_for_ever(one)
        return refused.value

    async def _send_for_ever(self, one: Request) -> None:
        while True:
            await self.send(one)

    async def emptied(self) -> None:
        """Wait until nothing waits for delivery."""
        await until(lambda: self.queue.state.requests == 0)

    def left(self, outcome: str, signal: Signal = Signal.TRACES) -> int:
        """How many requests left the queue like this."""
        return self.telemetry.counters.queue_requests.get(signal.value, outcome)


@contextlib.asynccontextmanager
async def queue_in(
    path: Path,
    destination: Destination | None = None,
    *,
    started: bool = True,
    max_bytes: int = 64 * MIB,
    max_age: float = DAY,
    max_dead_bytes: int = MIB,
    max_pages: int | None = None,
    segment_bytes: int = SEGMENT_BYTES,
    workers: int = 2,
    chance: float = 0.0,
    grace: float = 5.0,
    **clocks: Any,
) -> AsyncIterator[Parts]:
    """Run a queue; chance 0 means that it does not wait between tries."""
    telemetry = Telemetry()
    destination = destination or Destination()
    queue = DurableQueue(
        path,
        destination.send,
        limits=QueueLimits(max_bytes, max_age, max_dead_bytes, max_pages, segment_bytes),
        lanes=LaneSettings(workers, 5.0),
        events=QueueEvents(telemetry),
        chance=lambda: chance,
        **clocks,
    )
    try:
        if started:
            queue.start()
        yield Parts(queue, destination, telemetry)
    finally:
        await queue.stop(grace)
