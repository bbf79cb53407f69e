"""Spans that wait for their root, without a processor around them, and a queue that does what it is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.errors import OverloadedError
from neatlogs_processor.holding.events import HoldingEvents
from neatlogs_processor.holding.holding import Holding, HoldingLimits
from neatlogs_processor.telemetry import Telemetry
from support.otlp_sink import attributes
from support.spans import request

MIB = 2**20
LONG = 3600.0
"""Seconds that no test waits."""


class Queue:
    """Takes every request, unless it is told to refuse, or to wait.

    Attributes:
        requests: What it has taken.
        refuses: Whether it is full.
        open: While it is not set, requests wait.
        tries: How often somebody has tried.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.refuses = False
        self.tries = 0
        self.open = asyncio.Event()
        self.open.set()

    async def send(self, request: Request) -> bytes:
        """See `DurableQueue.send`."""
        self.tries += 1
        await self.open.wait()
        if self.refuses:
            raise OverloadedError("the queue is full", retry_after=0.01)
        self.requests.append(request)
        return b""

    @property
    def spans(self) -> list[Span]:
        """The spans that it has taken, in order."""
        return [span for one in self.requests for span in spans_of(one.body)]

    @property
    def end_users(self) -> dict[str, object]:
        """The end user on each span, by its name."""
        return {span.name: attributes(span).get("neatlogs.end_user.id") for span in self.spans}


@dataclass
class Parts:
    """What holds spans, and what is around it."""

    holding: Holding
    queue: Queue
    telemetry: Telemetry
    policy: EndUserPolicy

    async def send(self, *spans: Span, **resource: str) -> None:
        """Send one request with these spans."""
        await self.send_body(request(*spans, **resource))

    async def send_body(self, body: bytes) -> None:
        """Send one request."""
        enforced = enforce_traces(body, self.policy)
        assert await self.holding.send(Request(Signal.TRACES, enforced.body, enforced=enforced)) == b""

    def outcome(self, outcome: str) -> int:
        """How many spans have gone on like this."""
        return self.telemetry.counters.inherit_spans.get(outcome)


@contextlib.asynccontextmanager
async def holding_in(
    path: Path,
    queue: Queue | None = None,
    *,
    wait: float = LONG,
    max_spans: int = 10_000,
    max_bytes: int = 64 * MIB,
    max_memory: int = MIB,
    max_pages: int | None = None,
    policy: EndUserPolicy | None = None,
    **more: Any,
) -> AsyncIterator[Parts]:
    """Hold spans in a directory."""
    telemetry = Telemetry()
    queue = queue or Queue()
    policy = policy or EndUserPolicy()
    holding = Holding(
        path,
        queue.send,
        policy=policy,
        limits=HoldingLimits(wait, max_spans, max_bytes, max_memory, max_pages),
        events=HoldingEvents(telemetry),
        chance=lambda: 0.0,
        **more,
    )
    try:
        holding.start()
        yield Parts(holding, queue, telemetry, policy)
    finally:
        await holding.stop()


def spans_of(body: bytes) -> list[Span]:
    """The spans of a request."""
    message = ExportTraceServiceRequest.FromString(body)
    return [span for one in message.resource_spans for scope in one.scope_spans for span in scope.spans]
