"""Steady load at a moderate rate: nothing acknowledged is lost, no override gets through, resident memory stays flat.

    python tests/torture/steady.py --duration 3600 --rate 2000
    python tests/torture/steady.py --duration 60 -- --queue-dir /tmp/queue     # what follows -- goes to the processor

Generator, processor and sink are three parts of one path: sequence-numbered spans over OTLP/gRPC, the processor in a
process of its own, a sink that reads every span. Prints a line a minute and the figures at the end; the exit code is 0
only if nothing was lost, no override arrived and memory was flat.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

# A script's path begins with its own folder; what the tests share lies one up.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.processor import Program, program  # found only through the line above

_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_ID = "neatlogs.end_user.id"
_SPANS_A_TRACE = 8
_SAMPLE_SECONDS = 10.0
_REPORT_SECONDS = 60.0
# Memory is flat if the last third of the samples is no higher than the second by more than this share and this much.
_GROWTH_SHARE = 0.05
_GROWTH_BYTES = 4 * 2**20


@dataclass
class Figures:
    """What was counted."""

    sent: int = 0
    acknowledged: int = 0
    requests: int = 0
    retried: int = 0
    received: int = 0
    duplicated: int = 0
    roots: int = 0
    roots_with_identity: int = 0
    overrides_sent: int = 0
    overrides_received: int = 0
    resident: list[int] = field(default_factory=list)
    seen: bytearray = field(default_factory=bytearray)
    latencies: list[float] = field(default_factory=list)

    def arrived(self, body: bytes) -> None:
        """Count the spans of a request that the sink got."""
        for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    number = int.from_bytes(span.span_id, "big") - 1
                    if number >= len(self.seen):
                        self.seen.extend(bytes(number + 1_000_000 - len(self.seen)))
                    self.duplicated += self.seen[number]
                    self.received += not self.seen[number]
                    self.seen[number] = 1
                    named = any(attribute.key == _ID for attribute in span.attributes)
                    self.roots += not span.parent_span_id
                    self.roots_with_identity += named and not span.parent_span_id
                    self.overrides_received += named and bool(span.parent_span_id)

    @property
    def lost(self) -> int:
        """Spans that were acknowledged and never arrived; every span that is sent is repeated until acknowledged."""
        return self.acknowledged - sum(self.seen[: self.sent])

    def growth(self) -> tuple[int, int]:
        """Median resident bytes in the second and in the last third of the run; the first warms up."""
        third = max(1, len(self.resident) // 3)
        return (
            int(statistics.median(self.resident[third : 2 * third] or self.resident)),
            int(statistics.median(self.resident[2 * third :] or self.resident)),
        )

    @property
    def flat(self) -> bool:
        """Whether resident memory stayed where it was."""
        before, after = self.growth()
        return after <= before * (1 + _GROWTH_SHARE) + _GROWTH_BYTES


def batch(first: int, count: int, figures: Figures) -> bytes:
    """A request of `count` spans numbered from `first`: traces of eight spans, one child in eight with an override."""
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.attributes.append(_text("service.name", "shop"))
    if first // count % 4 == 0:
        resource_spans.resource.attributes.append(_text(_ID, "u_default"))
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "steady"
    now = time.time_ns()
    for number in range(first, first + count):
        root = number - number % _SPANS_A_TRACE
        span = Span(
            trace_id=(root + 1).to_bytes(16, "big"),
            # Ids of zero mean that there is none.
            span_id=(number + 1).to_bytes(8, "big"),
            name="chat" if number == root else "llm",
            kind=Span.SPAN_KIND_SERVER if number == root else Span.SPAN_KIND_CLIENT,
            start_time_unix_nano=now,
            end_time_unix_nano=now + 1_000_000,
            attributes=[_text("http.route", "/chat"), _text("input.value", "What is the weather like? " * 8)],
            flags=257,
        )
        if number != root:
            span.parent_span_id = (root + 1).to_bytes(8, "big")
        if number == root or number % 8 == 3:
            span.attributes.append(_text(_ID, f"u_{root % 10_007}"))
            figures.overrides_sent += number != root
        scope_spans.spans.append(span)
    return request.SerializeToString()


def _text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def resident(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def generate(target: str, arguments: argparse.Namespace, figures: Figures) -> None:
    """Send at the rate; every request is repeated until it is acknowledged."""
    loop = asyncio.get_running_loop()
    room = asyncio.Semaphore(arguments.concurrency)
    began = loop.time()
    async with grpc.aio.insecure_channel(target) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_EXPORT)

        async def deliver(body: bytes) -> None:
            try:
                while True:
                    started = loop.time()
                    try:
                        await call(body, timeout=10)
                    except grpc.aio.AioRpcError:
                        figures.retried += 1
                        await asyncio.sleep(0.5)
                        continue
                    figures.acknowledged += arguments.batch
                    figures.latencies.append(loop.time() - started)
                    return
            finally:
                room.release()

        deliveries: set[asyncio.Task[None]] = set()
        while (elapsed := loop.time() - began) < arguments.duration:
            if figures.sent > elapsed * arguments.rate:
                await asyncio.sleep(arguments.batch / arguments.rate / 4)
                continue
            await room.acquire()
            body = batch(figures.sent, arguments.batch, figures)
            figures.sent += arguments.batch
            figures.requests += 1
            delivery = asyncio.create_task(deliver(body))
            deliveries.add(delivery)
            delivery.add_done_callback(deliveries.discard)
        await asyncio.gather(*deliveries)


async def watch(processor: Program, figures: Figures) -> None:
    """Sample resident memory, and report now and then."""
    began = reported = time.monotonic()
    while True:
        figures.resident.append(resident(processor.process.pid))
        if time.monotonic() - reported >= _REPORT_SECONDS:
            reported = time.monotonic()
            print(
                f"{reported - began:6.0f} s  sent {figures.sent}  acknowledged {figures.acknowledged}"
                f"  received {figures.received}  retried requests {figures.retried}"
                f"  resident {figures.resident[-1] / 2**20:.1f} MiB",
                flush=True,
            )
        await asyncio.sleep(_SAMPLE_SECONDS)


async def run(arguments: argparse.Namespace) -> bool:
    """Run the load and print the figures. Returns whether all held."""
    figures = Figures()

    async def export(body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        figures.arrived(body)
        return b""

    sink = grpc.aio.server()
    service, _, method = _EXPORT[1:].partition("/")
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {method: grpc.unary_unary_rpc_method_handler(export)}
    sink.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = sink.add_insecure_port("127.0.0.1:0")
    await sink.start()
    flags = ["--grpc-listen", "127.0.0.1:0", "--upstream-endpoint", f"127.0.0.1:{port}", *arguments.flags]
    async with program(*flags) as processor:
        target = await processor.ready()
        watching = asyncio.create_task(watch(processor, figures))
        await generate(target, arguments, figures)
        # With a queue the last ones are still on their way.
        deadline = time.monotonic() + 60
        while figures.lost and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
        watching.cancel()
        cpu = _cpu_seconds(processor.process.pid)
        processor.process.terminate()
        finished = await processor.end()
    await sink.stop(None)
    before, after = figures.growth()
    ordered = sorted(figures.latencies)
    print(
        f"Python {platform.python_version()}, {arguments.duration:g} s at {arguments.rate} spans/s,"
        f" {arguments.batch} spans a request, flags: {' '.join(arguments.flags) or 'none'}\n"
        f"sent {figures.sent}, acknowledged {figures.acknowledged}, received {figures.received},"
        f" lost {figures.lost}, duplicated {figures.duplicated}, requests retried {figures.retried}\n"
        f"overrides sent {figures.overrides_sent}, arrived {figures.overrides_received};"
        f" roots {figures.roots}, with an end user {figures.roots_with_identity}\n"
        f"resident: start {figures.resident[0] / 2**20:.1f} MiB, median of the second third {before / 2**20:.1f} MiB,"
        f" of the last third {after / 2**20:.1f} MiB, highest {max(figures.resident) / 2**20:.1f} MiB"
        f" ({len(figures.resident)} samples)\n"
        f"answer after {ordered[len(ordered) // 2] * 1e3:.1f} ms (median),"
        f" {ordered[len(ordered) * 99 // 100] * 1e3:.1f} ms (99th percentile);"
        f" CPU {cpu:.0f} s, {cpu / arguments.duration:.1%} of one core; exit code {finished.code}",
        flush=True,
    )
    good = not figures.lost and not figures.overrides_received and figures.flat and finished.code == 0
    good = good and figures.roots == figures.roots_with_identity and figures.acknowledged == figures.sent
    print("all held" if good else "NOT ALL HELD", flush=True)
    return good


def _cpu_seconds(pid: int) -> float:
    values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=3600, help="seconds (default: %(default)g)")
    parser.add_argument("--rate", type=int, default=2000, help="spans a second (default: %(default)s)")
    parser.add_argument(
        "--batch", type=int, default=128, help="spans a request, a multiple of 8 (default: %(default)s)"
    )
    parser.add_argument("--concurrency", type=int, default=32, help="requests at once (default: %(default)s)")
    parser.add_argument("flags", nargs="*", help="flags of the processor, after --")
    return 0 if asyncio.run(run(parser.parse_args())) else 1


if __name__ == "__main__":
    sys.exit(main())
