"""Kill the processor again and again while clients send, and count what arrives.

Every span has a number. A number is acknowledged when the client got OK for it. Each time, the processor is killed with
SIGKILL at a random moment, started again on the same port and, with `--mode queue`, on the same queue; clients send a
request again until it is acknowledged. The upstream refuses some requests for a moment and loses some answers. In the
end every acknowledged number must have arrived at least once.

With `--mode store` there is no upstream: every acknowledged number must be in the store exactly once, traces whose
spans came in several requests included; the database must be whole, and each rollup the sum of its spans.

With `--mode inherit` spans wait in the queue's directory for the root of their trace, which is sent last. Every
acknowledged number must arrive here too; it is also said how many children arrived with the end user of their root.

    python tests/torture/kill9.py --mode queue --kills 100
    python tests/torture/kill9.py --mode inherit --kills 100
    python tests/torture/kill9.py --mode sync --kills 100
    python tests/torture/kill9.py --mode store --kills 100
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import grpc
import grpc.aio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

# A script's path begins with its own folder; what the tests share lies one up.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.processor import program
from support.store_contents import assert_sound, sent_of
from support.store_strategies import attributes
from support.upstream import SERVICES

CLIENTS = 8
KILLED_EARLY = 0.2
"""The share of runs that are killed at any moment, before they listen for instance."""
DRAIN_SECONDS = 60.0
SPANS_A_TRACE = 7

_AGAIN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}
_EXPORT = f"/{SERVICES['traces']}/Export"


class CountingUpstream:
    """Counts how often each number arrives. Not all goes well with it.

    Args:
        chance: Decides which requests are refused for now, and which answers are lost after the request was kept.
        port: Where it listens; 0 takes any free port.
        arrived: What has arrived at an earlier one in its place.
        read: Reads the numbers of a request.
    """

    def __init__(
        self,
        chance: random.Random,
        port: int = 0,
        arrived: Counter[int] | None = None,
        read: Callable[[bytes], Iterable[int]] | None = None,
    ) -> None:
        self.arrived: Counter[int] = Counter() if arrived is None else arrived
        self._read = read or numbers
        self._chance = chance
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        handler = grpc.unary_unary_rpc_method_handler(self._export)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICES["traces"], {"Export": handler}),)
        )
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")

    async def start(self) -> None:
        """Accept requests."""
        await self._server.start()

    async def stop(self) -> None:
        """Stop at once."""
        await self._server.stop(None)

    async def _export(self, body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        fate = self._chance.random()
        if fate < 0.05:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        self.arrived.update(self._read(body))
        if fate < 0.07:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "kept, but the answer got lost")
        return b""


class Load:
    """Clients that send numbered spans and do not give up.

    Args:
        port: Where the processor listens.
        chance: Decides how many spans a request has.
        request: Makes a request with spans of these numbers.
    """

    def __init__(self, port: int, chance: random.Random, request: Callable[[range], bytes]) -> None:
        self.sent = 0
        self._request = request
        self.acknowledged: set[int] = set()
        self._port = port
        self._chance = chance
        self._stopping = False

    def stop(self) -> None:
        """Begin no further request."""
        self._stopping = True

    async def client(self) -> None:
        """Send requests, each until it is acknowledged."""
        options = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self._port}", options=options) as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_EXPORT)
            while not self._stopping:
                first = self.sent
                self.sent += self._chance.randint(1, 20)
                ids = range(first, self.sent)
                body = self._request(ids)
                while not await accepted(call, body):
                    await asyncio.sleep(0.02)
                self.acknowledged.update(ids)


async def accepted(call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes], body: bytes) -> bool:
    """Send a request once and say whether the answer is OK; any answer that is final otherwise is a failure."""
    try:
        await call(body, timeout=10)
    except grpc.aio.AioRpcError as error:
        if error.code() not in _AGAIN:
            raise
        return False
    return True


def request(ids: range) -> bytes:
    """Return a request with one span for each number, half a kilobyte each."""
    spans = [
        Span(trace_id=number.to_bytes(16, "big"), span_id=(number + 1).to_bytes(8, "big"), name="x" * 400)
        for number in ids
    ]
    message = ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])])
    return message.SerializeToString()


def numbers(body: bytes) -> list[int]:
    """Return the numbers of a request's spans; fail where one is not as it was sent."""
    found = []
    for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                number = int.from_bytes(span.trace_id, "big")
                assert span.span_id == (number + 1).to_bytes(8, "big")
                assert span.name == "x" * 400
                found.append(number)
    return found


async def torture(mode: str, kills: int, seed: int, folder: Path) -> bool:
    """Run it against an upstream, print the figures and say whether nothing was lost."""
    chance = random.Random(seed)  # noqa: S311  # moments, not secrets
    inheriting = Inheriting()
    upstream = CountingUpstream(chance, read=inheriting.numbers if mode == "inherit" else numbers)
    await upstream.start()
    port = free_port()
    flags = [*listening(port), "--upstream-endpoint", f"127.0.0.1:{upstream.port}"]
    if mode in ("queue", "inherit"):
        flags += ["--queue-dir", str(folder / "queue")]
    if mode == "inherit":
        flags += ["--inherit", "--inherit-wait", "3s"]
    load = Load(port, chance, inheriting.request if mode == "inherit" else request)
    begun = time.monotonic()
    clients = [asyncio.create_task(load.client()) for _ in range(CLIENTS)]
    await kill(flags, kills, chance)
    async with program(*flags) as running:
        await running.ready()
        load.stop()
        await asyncio.gather(*clients)
        deadline = time.monotonic() + DRAIN_SECONDS
        while load.acknowledged - upstream.arrived.keys() and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        running.kill(signal.SIGTERM)
        finished = await running.end()
    await upstream.stop()
    lost = load.acknowledged - upstream.arrived.keys()
    print(
        f"mode {mode}, {kills} kills in {time.monotonic() - begun:.0f} s (seed {seed}); spans: {load.sent} sent,"
        f" {len(load.acknowledged)} acknowledged, {len(upstream.arrived)} received, {len(lost)} lost,"
        f" {upstream.arrived.total() - len(upstream.arrived)} duplicated"
        + (f"; {inheriting}" if mode == "inherit" else "")
    )
    if lost or finished.code:
        print(f"exit code {finished.code}; stderr of the last run:\n{finished.stderr}")
    return not lost and finished.code == 0


class Inheriting:
    """Traces whose root comes last, and how many of their children have arrived with its end user."""

    def __init__(self) -> None:
        self.stamped: set[int] = set()
        self.children: set[int] = set()

    def __str__(self) -> str:
        return f"{len(self.stamped)} of {len(self.children)} children have the end user of their root"

    def request(self, ids: range) -> bytes:
        """Return a request with one span for each number; the highest of a trace is its root."""
        spans = []
        for number in ids:
            trace, index = divmod(number, SPANS_A_TRACE)
            root = index == SPANS_A_TRACE - 1
            spans.append(
                Span(
                    trace_id=(trace + 1).to_bytes(16, "big"),
                    span_id=(number + 1).to_bytes(8, "big"),
                    parent_span_id=b"" if root else b"\x01" * 8,
                    name="x" * 400,
                    attributes=attributes({"neatlogs.end_user.id": f"user {trace}"} if root else {}),
                )
            )
        message = ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])])
        return message.SerializeToString()

    def numbers(self, body: bytes) -> list[int]:
        """Return the numbers of a request's spans; fail where one is not as it was sent, or has another's end user."""
        found = []
        for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    number = int.from_bytes(span.span_id, "big") - 1
                    trace = int.from_bytes(span.trace_id, "big") - 1
                    users = [one.value.string_value for one in span.attributes if one.key == "neatlogs.end_user.id"]
                    assert trace == number // SPANS_A_TRACE
                    assert span.name == "x" * 400
                    assert users in ([], [f"user {trace}"])
                    if span.parent_span_id:
                        self.children.add(number)
                        self.stamped.update([number] if users else [])
                    found.append(number)
        return found


async def torture_store(kills: int, seed: int, folder: Path) -> bool:
    """Run it with a store, print the figures and say whether nothing was lost, doubled or added up wrongly."""
    chance = random.Random(seed)  # noqa: S311  # moments, not secrets
    port, path = free_port(), folder / "traces.db"
    flags = [*listening(port), "--store", str(path)]
    load = Load(port, chance, traces)
    begun = time.monotonic()
    clients = [asyncio.create_task(load.client()) for _ in range(CLIENTS)]
    await kill(flags, kills, chance)
    async with program(*flags) as running:
        await running.ready()
        load.stop()
        await asyncio.gather(*clients)
        running.kill(signal.SIGTERM)
        finished = await running.end()
    assert_sound(path)
    stored = Counter(int.from_bytes(one.span.span_id, "big") - 1 for one in sent_of(path))
    lost = load.acknowledged - stored.keys()
    doubled = stored.total() - len(stored)
    print(
        f"mode store, {kills} kills in {time.monotonic() - begun:.0f} s (seed {seed}); spans: {load.sent} sent,"
        f" {len(load.acknowledged)} acknowledged, {len(stored)} received, {len(lost)} lost, {doubled} duplicated;"
        " every rollup is the sum of its spans"
    )
    if finished.code:
        print(f"exit code {finished.code}; stderr of the last run:\n{finished.stderr}")
    return not lost and not doubled and finished.code == 0


def traces(ids: range) -> bytes:
    """Return a request with one span for each number: roots with an end user, children, errors and model calls."""
    spans = []
    for number in ids:
        trace, index = divmod(number, SPANS_A_TRACE)
        said = {"neatlogs.end_user.id": f"user {trace % 5}"} if not index else {"llm.token_count.total": number % 11}
        spans.append(
            Span(
                trace_id=(trace + 1).to_bytes(16, "big"),
                span_id=(number + 1).to_bytes(8, "big"),
                parent_span_id=(number + 1 - index).to_bytes(8, "big") if index else b"",
                name="x" * 400,
                start_time_unix_nano=1 + number * 997 % 1000,
                end_time_unix_nano=1000 + number,
                status=Status(code=Status.STATUS_CODE_ERROR if number % 5 == 0 else Status.STATUS_CODE_UNSET),
                attributes=attributes(said),
            )
        )
    message = ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])])
    return message.SerializeToString()


async def kill(flags: Sequence[str], kills: int, chance: random.Random) -> None:
    """Start the processor and kill it, so many times."""
    for _ in range(kills):
        async with program(*flags) as running:
            if chance.random() < KILLED_EARLY:
                await asyncio.sleep(chance.uniform(0.0, 1.0))
            else:
                await running.ready()
                await asyncio.sleep(chance.uniform(0.0, 0.5))
            try:
                running.kill(signal.SIGKILL)
            except ProcessLookupError:
                raise AssertionError(f"it ended by itself:\n{(await running.end()).stderr}") from None
            await running.end()


def listening(port: int) -> list[str]:
    """Return the flags of a processor that listens on this port alone."""
    return ["--grpc-listen", f"127.0.0.1:{port}", "--http-listen", "none", "--admin-listen", "none"]


def free_port() -> int:
    """Return a port that nobody listens on: every run of the processor takes the same one."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return int(reserved.getsockname()[1])


def main() -> int:
    """Run as the arguments say; 0 where nothing was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mode", choices=("queue", "sync", "store", "inherit"), default="queue")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.mode == "store":
            well = asyncio.run(torture_store(arguments.kills, arguments.seed, Path(folder)))
        else:
            well = asyncio.run(torture(arguments.mode, arguments.kills, arguments.seed, Path(folder)))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
