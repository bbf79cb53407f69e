"""The load generator: sends trace requests over gRPC or HTTP, as fast as so many clients can, or at a fixed rate."""

from __future__ import annotations

import asyncio
import gzip
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import grpc
import grpc.aio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Protocol = Literal["grpc", "http"]
Send = Callable[[bytes], Awaitable[None]]

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_NO_LIMITS = [("grpc.max_send_message_length", -1)]
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


def fresh_copies(body: bytes, count: int) -> list[bytes]:
    """Return copies of a request whose traces are new: a store keeps a span once."""
    traces = {
        span.trace_id
        for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    }
    places = [[match.start() for match in re.finditer(re.escape(trace), body)] for trace in traces]
    copies = []
    for _ in range(count):
        copy = bytearray(body)
        for starts in places:
            trace = random.randbytes(16)  # noqa: S311  # only different
            for start in starts:
                copy[start : start + 16] = trace
        copies.append(bytes(copy))
    return copies


@asynccontextmanager
async def client(protocol: Protocol, port: int, *, compressed: bool, connections: int) -> AsyncIterator[Send]:
    """Yield a function that sends one request and waits for the answer.

    Args:
        protocol: `grpc` takes one connection, as OpenTelemetry's exporters do; `http` one for each request at a time.
        port: Where to, on the loopback interface.
        compressed: With gzip. Over HTTP the body is expected to be compressed already.
        connections: Requests at the same time.
    """
    if protocol == "grpc":
        compression = grpc.Compression.Gzip if compressed else grpc.Compression.NoCompression
        target = f"127.0.0.1:{port}"
        async with grpc.aio.insecure_channel(target, options=_NO_LIMITS, compression=compression) as channel:
            export = channel.unary_unary(METHOD)

            async def send(body: bytes) -> None:
                await export(body)

            yield send
        return
    idle: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.LifoQueue()
    for _ in range(connections):
        idle.put_nowait(await asyncio.open_connection("127.0.0.1", port))

    async def post(body: bytes) -> None:
        reader, writer = connection = await idle.get()
        encoding = "content-encoding: gzip\r\n" if compressed else ""
        head = (
            "POST /v1/traces HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/x-protobuf\r\n"
            f"{encoding}content-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(answer)
        if not answer.startswith(b"HTTP/1.1 200") or length is None:
            raise RuntimeError(f"the proxy answered {answer!r}")
        await reader.readexactly(int(length[1]))
        idle.put_nowait(connection)

    try:
        yield post
    finally:
        while not idle.empty():
            idle.get_nowait()[1].close()


def on_the_wire(bodies: Sequence[bytes], protocol: Protocol, *, compressed: bool) -> list[bytes]:
    """Return what `client` is given: over HTTP the compressed bodies, because gRPC compresses by itself."""
    if compressed and protocol == "http":
        return [gzip.compress(body, 1) for body in bodies]
    return list(bodies)


async def send_all(send: Send, bodies: Sequence[bytes], *, concurrency: int) -> None:
    """Send every body once, so many at the same time."""
    waiting = iter(bodies)

    async def work() -> None:
        for body in waiting:
            await send(body)

    await asyncio.gather(*(work() for _ in range(concurrency)))


async def send_paced(send: Send, bodies: Sequence[bytes], *, rate: float) -> list[float]:
    """Send every body at its time, whether or not the ones before were answered. Returns the seconds that each took.

    Each answer's time counts from when the request was due, so that a stall is not hidden by the requests that it holds
    back.
    """
    taken: list[float] = []
    began = time.perf_counter()

    async def one(body: bytes, due: float) -> None:
        await send(body)
        taken.append(time.perf_counter() - due)

    tasks = []
    for number, body in enumerate(bodies):
        due = began + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(body, due)))
    await asyncio.gather(*tasks)
    return taken
