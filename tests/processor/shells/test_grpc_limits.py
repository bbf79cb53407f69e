"""What one gRPC client may take up: bytes, streams, headers, time."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo

from neatlogs_processor.core.inflate import GZIP_MAGIC
from support.processor import LIMIT, Running, peak_resident, program, running, until
from support.spans import request, root
from support.upstream import SERVICES, Reply, Upstream, export, refused

EXPORT = f"/{SERVICES['traces']}/Export"
RETRY_INFO = "google.rpc.retryinfo-bin"

# The client's side of HTTP/2 (https://www.rfc-editor.org/rfc/rfc9113#name-http-2-connection-preface) with no settings.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
GOAWAY = 7


@contextlib.asynccontextmanager
async def connection(target: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection."""
    host, _, port = target.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def frames(reader: asyncio.StreamReader) -> AsyncIterator[tuple[int, bytes]]:
    """The type and payload of each HTTP/2 frame until the connection is closed."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await asyncio.wait_for(reader.readexactly(9), LIMIT)
            length = struct.unpack(">I", b"\0" + head[:3])[0]
            yield head[3], await reader.readexactly(length)


async def told_to_go(reader: asyncio.StreamReader) -> None:
    """Wait for the frame with which a server ends a connection."""
    async for kind, _ in frames(reader):
        if kind == GOAWAY:
            return
    raise AssertionError("the connection was closed without a word")


def held(processor: Running) -> float:
    """The bytes that the processor counts as in flight."""
    return processor.service.telemetry.gauges.bytes_in_flight.read()


async def test_a_body_that_stops_arriving_is_given_up() -> None:
    """A half-sent message is answered after --body-timeout with a code that may be retried, and counted."""
    async with (
        running(console=True, body_timeout="200ms") as processor,
        grpc.aio.insecure_channel(processor.target) as channel,
    ):
        call = channel.stream_unary(EXPORT)(timeout=LIMIT)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call
        assert processor.service.telemetry.counters.requests.get("traces", "too_slow") == 1
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "--body-timeout" in (error.value.details() or "")


async def test_bodies_that_are_still_arriving_are_bounded() -> None:
    """Over all connections, at most --max-concurrent-requests bodies may be on their way; the next is told to wait."""
    async with (
        running(console=True, max_concurrent_requests=2) as processor,
        grpc.aio.insecure_channel(processor.target) as first,
        grpc.aio.insecure_channel(processor.target, options=[("grpc.use_local_subchannel_pool", 1)]) as second,
    ):
        arriving = [channel.stream_unary(EXPORT)(timeout=LIMIT) for channel in (first, second)]
        for call in arriving:
            await call.wait_for_connection()

        async def overloaded() -> bool:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await export(processor.target, request(root()))
                return False
            return True

        while not await overloaded():
            await asyncio.sleep(0.01)
        error = await refused(processor.target, request(root()))
        for call in arriving:
            await call.write(request(root()))
            assert await call == b""
        await export(processor.target, request(root()))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert RETRY_INFO in dict(error.trailing_metadata())


async def test_the_bytes_of_all_requests_are_bounded() -> None:
    """While requests that wait for the upstream fill --max-bytes-in-flight, others are asked to come back."""
    accept = asyncio.Event()
    body = request(root("x" * 60_000))
    async with (
        Upstream(Reply(after=accept)) as upstream,
        running(upstream_endpoint=upstream.endpoint, max_bytes_in_flight="100KiB") as processor,
    ):
        first = asyncio.create_task(export(processor.target, body))
        await upstream.wait_for(1)
        for compression in (None, grpc.Compression.Gzip):
            error = await refused(processor.target, body, compression=compression)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "--max-bytes-in-flight" in (error.details() or "")
            delay = RetryInfo.FromString(dict(error.trailing_metadata())[RETRY_INFO]).retry_delay
            assert 1 <= delay.ToNanoseconds() / 1e9 < 2
        accept.set()
        await first
        await export(processor.target, body)
        assert processor.service.telemetry.counters.requests.get("traces", "overloaded") == 2


async def test_headers_are_bounded() -> None:
    """Headers over --max-header-size are refused without being looked at."""
    async with (
        Upstream() as upstream,
        running(upstream_endpoint=upstream.endpoint, max_header_size="4KiB") as processor,
    ):
        error = await refused(processor.target, request(root()), metadata=(("x-a", "b" * 5000),))
        await export(processor.target, request(root()), metadata=(("x-a", "b" * 3000),))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(upstream.received) == 1


async def test_requests_of_one_connection_are_bounded() -> None:
    """Past --grpc-max-streams, a connection's requests wait at the client or are refused for the moment."""
    accept = asyncio.Event()
    async with (
        Upstream(Reply(after=accept)) as upstream,
        running(upstream_endpoint=upstream.endpoint, grpc_max_streams=2) as processor,
        grpc.aio.insecure_channel(processor.target) as channel,
    ):
        call = channel.unary_unary(EXPORT)
        # The client learns the limit with the server's first frame.
        await channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=LIMIT)
        calls = [asyncio.ensure_future(call(request(root()), timeout=LIMIT)) for _ in range(6)]
        await upstream.wait_for(1)
        assert held(processor) <= 2 * len(request(root()))
        assert len(upstream.received) <= 2
        accept.set()
        answers = await asyncio.gather(*calls, return_exceptions=True)
    refusals = [one for one in answers if isinstance(one, grpc.aio.AioRpcError)]
    assert {error.code() for error in refusals} <= {grpc.StatusCode.UNAVAILABLE}
    assert len(upstream.received) == len(answers) - len(refusals) >= 1


async def test_a_connection_of_age_is_asked_to_connect_again() -> None:
    """After --grpc-max-connection-age a client is told to go, its requests may finish, and the next one reconnects."""
    accept = asyncio.Event()
    async with (
        Upstream(Reply(after=accept), Reply()) as upstream,
        running(
            upstream_endpoint=upstream.endpoint, grpc_max_connection_age="200ms", grpc_max_connection_age_grace="20s"
        ) as processor,
        connection(processor.target) as (reader, writer),
        grpc.aio.insecure_channel(processor.target) as channel,
    ):
        call = channel.unary_unary(EXPORT)
        waiting = asyncio.ensure_future(call(request(root()), timeout=LIMIT))
        await upstream.wait_for(1)
        writer.write(PREFACE)
        await told_to_go(reader)
        accept.set()
        assert await waiting == b""
        assert await call(request(root()), timeout=LIMIT) == b""


async def test_a_connection_of_age_does_not_wait_for_ever() -> None:
    """What a client still has under way is ended once --grpc-max-connection-age-grace is over."""
    never = asyncio.Event()
    async with (
        Upstream(Reply(after=never)) as upstream,
        running(
            upstream_endpoint=upstream.endpoint,
            upstream_timeout="60s",
            grpc_max_connection_age="200ms",
            grpc_max_connection_age_grace="200ms",
        ) as processor,
    ):
        error = await refused(processor.target, request(root()), timeout=None)
        await until(lambda: held(processor) == 0)
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_an_idle_connection_is_closed() -> None:
    """A connection without requests does not stay for ever."""
    async with (
        running(console=True, grpc_max_connection_idle="200ms") as processor,
        connection(processor.target) as (reader, writer),
    ):
        writer.write(PREFACE)
        await told_to_go(reader)


@pytest.mark.parametrize("sent", [b"", b"PRI * HTTP/2.0\r\n"])
async def test_a_silent_connection_is_closed(sent: bytes) -> None:
    """Whoever connects and does not speak HTTP/2 within --grpc-handshake-timeout is disconnected."""
    async with (
        running(console=True, grpc_handshake_timeout="200ms") as processor,
        connection(processor.target) as (reader, writer),
    ):
        writer.write(sent)
        async for _ in frames(reader):
            pass
        assert reader.at_eof()


async def test_a_compression_that_otlp_does_not_know_is_refused() -> None:
    """Deflate is answered UNIMPLEMENTED, as gRPC says."""
    async with running(console=True) as processor:
        error = await refused(processor.target, request(root()), compression=grpc.Compression.Deflate)
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "body", [GZIP_MAGIC, gzip.compress(b"\x0a\x00", mtime=0)[:-3], gzip.compress(b"\x0a\x00", mtime=0) + b"tail"]
)
async def test_gzip_that_cannot_be_read_is_malformed(body: bytes) -> None:
    """It is refused for good, whatever the headers say about compression: OTLP never begins like gzip."""
    async with running(console=True) as processor:
        error = await refused(processor.target, body)
        assert processor.service.telemetry.counters.requests.get("traces", "malformed") == 1
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
async def test_memory_stays_flat_under_gzip_bombs() -> None:
    """Bombs over the limit, and bombs just under it that wait for an upstream, leave memory near the budget."""
    over = gzip.compress(bytes(256 * 2**20), 1)
    under = gzip.compress(request(root("x" * 8_000_000)), 1)
    never = asyncio.Event()
    flags = ("--max-message-size", "8MiB", "--max-bytes-in-flight", "16MiB", "--upstream-timeout", "2s")
    listen = ("--grpc-listen", "127.0.0.1:0", "--http-listen", "none", "--admin-listen", "none")
    async with (
        Upstream(Reply(after=never)) as upstream,
        program(*listen, *flags, "--upstream-endpoint", upstream.endpoint) as processor,
    ):
        target = await processor.ready()
        await refused(target, b"\xff")
        before = peak_resident(processor.process.pid)
        errors = await asyncio.gather(*(refused(target, bomb) for bomb in [over, under] * 40))
        grown = peak_resident(processor.process.pid) - before
        never.set()
        await export(target, under)
    assert {error.code() for error in errors} <= {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
    # What came in compressed, the body that is in flight with its copy on the way out, and gRPC's own buffers. Without
    # the budget, forty bodies of 8 MB would be held.
    assert grown < 150 * 2**20, f"{grown / 2**20:.0f} MiB"


async def test_a_client_that_leaves_gives_its_bytes_back() -> None:
    """Bytes in flight are those of requests that are still there."""
    never = asyncio.Event()
    async with (
        Upstream(Reply(after=never)) as upstream,
        running(upstream_endpoint=upstream.endpoint, upstream_timeout="60s") as processor,
    ):
        gone = asyncio.create_task(export(processor.target, request(root())))
        await upstream.wait_for(1)
        assert held(processor) == len(request(root()))
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        await until(lambda: held(processor) == 0)
