"""The store without a processor around it: requests with so many spans, sent to it one by one or until it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.errors import StoreUnavailableError
from neatlogs_processor.store.retention import Limits
from neatlogs_processor.store.sqlite import Store
from neatlogs_processor.telemetry import Telemetry
from support.store_oracle import Sent
from support.store_strategies import attributes, request

POLICY = EndUserPolicy()
MIB = 2**20
START = 1_795_000_000 * 10**9
"""The time at which the tests begin, in nanoseconds."""


class Clock:
    """Nanoseconds since the epoch that pass when they are told to."""

    def __init__(self, now: int = START) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def trace(number: int, *, spans: int = 1, padding: int = 0, user: str = "alice", service: str = "shop") -> list[Sent]:
    """The spans of a trace: a root with an end user and children; padding is text that cannot be compressed."""
    noise = random.Random(number)  # noqa: S311  # repeatable, not secret
    trace_id = (number + 1).to_bytes(16, "big")
    resource = Resource(attributes=attributes({"service.name": service}))
    return [
        Sent(
            Span(
                trace_id=trace_id,
                span_id=(index + 1).to_bytes(8, "big"),
                parent_span_id=(1).to_bytes(8, "big") if index else b"",
                name=f"span {index}" + noise.randbytes(padding).hex(),
                start_time_unix_nano=START + index,
                end_time_unix_nano=START + 1000,
                attributes=attributes({} if index else {"neatlogs.end_user.id": user}),
            ),
            resource,
        )
        for index in range(spans)
    ]


def traces(*sent: list[Sent]) -> Request:
    """Return a trace request after the rule, with these traces."""
    enforced = enforce_traces(request([one for spans in sent for one in spans]), POLICY)
    return Request(Signal.TRACES, enforced.body, enforced=enforced)


@dataclass
class Parts:
    """A store and what is around it."""

    path: Path
    store: Store
    telemetry: Telemetry
    clock: Clock
    seconds: Clock
    sent: int = 0
    kept: list[int] = field(default_factory=list)

    async def keep(self, *, padding: int = 0, spans: int = 1, count: int = 1) -> None:
        """Send so many new traces, one by one."""
        for _ in range(count):
            number = self.sent
            self.sent += 1
            assert await self.store.send(traces(trace(number, spans=spans, padding=padding))) == b""
            self.kept.append(number)

    async def fill(self, *, padding: int, spans: int = 1) -> StoreUnavailableError:
        """Send new traces until one is refused, and return the error."""
        with pytest.raises(StoreUnavailableError) as refused:
            await self._for_ever(padding, spans)
        return refused.value

    async def _for_ever(self, padding: int, spans: int) -> None:
        while True:
            await self.keep(padding=padding, spans=spans)

    def pruned(self) -> int:
        """How many spans retention has taken."""
        return self.telemetry.counters.store_pruned.total()


@contextlib.asynccontextmanager
async def store_at(path: Path, limits: Limits = Limits(), **settings: Any) -> AsyncIterator[Parts]:  # noqa: B008  # frozen
    """Run a store; it must end, and its thread with it."""
    telemetry, clock, seconds = Telemetry(), Clock(), Clock(0)
    given = {"policy": POLICY, "chance": lambda: 0.5, "clock": clock, "monotonic": seconds, **settings}
    store = Store(path, limits=limits, telemetry=telemetry, **given)
    store.start()
    try:
        yield Parts(path, store, telemetry, clock, seconds)
    finally:
        await asyncio.wait_for(store.close(), 60)
    assert not [thread for thread in threading.enumerate() if thread.name == "neatlogs-store"]
