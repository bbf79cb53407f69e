"""Several processors, a restart of one after the other under load, and the clients that see it: OpenTelemetry SDKs."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import httpx
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from support.processor import LIMIT, Program, program
from support.proxies import Behind, free_ports
from support.upstream import Upstream

_BATCH = 32


class Watched(SpanExporter):
    """An exporter that counts what the application would hear of: batches given up.

    Args:
        exporter: Sends.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.batches = 0
        self.given_up = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send, and count."""
        result = self._exporter.export(spans)
        self.batches += 1
        self.given_up += result is not SpanExportResult.SUCCESS
        return result

    def shutdown(self) -> None:
        """Close."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush."""
        return self._exporter.force_flush(timeout_millis)


@dataclass
class Application:
    """A program with an OpenTelemetry SDK that opens one span after the other, numbered by its name, until it is told.

    Args:
        name: Its `service.name`.
        exporter: Sends its spans.
        pause: Seconds between two spans.
    """

    name: str
    exporter: Watched
    pause: float = 0.002
    sent: int = 0
    _stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Open spans until `stop`, then flush what is left."""
        provider = TracerProvider(resource=Resource({"service.name": self.name}), shutdown_on_exit=False)
        provider.add_span_processor(
            BatchSpanProcessor(self.exporter, schedule_delay_millis=20, max_export_batch_size=_BATCH)
        )
        tracer = provider.get_tracer("fleet")
        while not self._stopping.wait(self.pause):
            tracer.start_span(f"{self.name} {self.sent}", attributes={"neatlogs.end_user.id": "u_812"}).end()
            self.sent += 1
        provider.shutdown()

    def stop(self) -> None:
        """Open no further span."""
        self._stopping.set()

    @property
    def names(self) -> set[str]:
        """The names of all spans that were opened."""
        return {f"{self.name} {number}" for number in range(self.sent)}


@contextlib.asynccontextmanager
async def applications(
    count: int, exporter: Callable[[], OTLPSpanExporter], *, pause: float = 0.002
) -> AsyncIterator[list[Application]]:
    """Run applications in threads until the block ends; afterwards all of their spans have been sent or given up."""
    running = [Application(f"app-{index}", Watched(exporter()), pause) for index in range(count)]
    tasks = [asyncio.create_task(asyncio.to_thread(one.run)) for one in running]
    try:
        yield running
    finally:
        for one in running:
            one.stop()
        await asyncio.gather(*tasks)


def arrived(upstream: Upstream) -> Counter[str]:
    """Return how often the span of each name has arrived."""
    return Counter(
        span.name
        for body in upstream.bodies
        for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    )


class Fleet:
    """Processors that are programs of their own, each with ports that stay its own; made by `fleet`.

    Args:
        upstream: Where they send.
        drain_delay: Their `--drain-delay`.
    """

    def __init__(self, upstream: str, *, drain_delay: str) -> None:
        self.flags = ("--upstream-endpoint", upstream, "--drain-delay", drain_delay)
        self.ports: list[Behind] = []
        self._stack = contextlib.AsyncExitStack()
        self._running: list[Program] = []

    async def start(self, count: int) -> None:
        """Start so many more processors."""
        ports = free_ports(3 * count)
        added = [Behind(*ports[3 * index : 3 * index + 3]) for index in range(count)]
        self._running += await asyncio.gather(*(self._start(one) for one in added))
        self.ports += added

    async def restart(self, index: int) -> None:
        """End one processor as an orchestrator would, and start another one in its place."""
        await self._end(self._running[index])
        self._running[index] = await self._start(self.ports[index])

    async def has_traffic(self, index: int) -> None:
        """Wait until one processor has delivered something since it was started."""
        async with httpx.AsyncClient(trust_env=False, timeout=LIMIT) as client:

            async def delivered() -> float:
                text = (await client.get(f"http://127.0.0.1:{self.ports[index].admin}/metrics")).text
                found = re.search(r"^neatlogs_processor_spans_forwarded_total (\S+)$", text, re.MULTILINE)
                return float(found[1]) if found else 0.0

            end = asyncio.get_running_loop().time() + LIMIT
            while not await delivered():
                assert asyncio.get_running_loop().time() < end, "nobody sends to it"
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        """End them all."""
        await asyncio.gather(*(self._end(one) for one in self._running))
        await self._stack.aclose()

    async def _start(self, ports: Behind) -> Program:
        listening = [
            word
            for name in ("grpc", "http", "admin")
            for word in (f"--{name}-listen", f"127.0.0.1:{getattr(ports, name)}")
        ]
        started = await self._stack.enter_async_context(program(*listening, *self.flags))
        await started.ready()
        return started

    async def _end(self, running: Program) -> None:
        running.kill(signal.SIGTERM)
        finished = await asyncio.wait_for(running.end(), LIMIT)
        assert finished.code == 0, finished.stderr


@contextlib.asynccontextmanager
async def fleet(upstream: str, count: int, *, drain_delay: str) -> AsyncIterator[Fleet]:
    """Run processors until the block ends."""
    running = Fleet(upstream, drain_delay=drain_delay)
    try:
        await running.start(count)
        yield running
    finally:
        await running.close()
