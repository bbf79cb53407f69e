"""What one HTTP client may cost: slow, silent, huge and many ones, over bare sockets."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.receivers.http_body import BodyLimits
from neatlogs_processor.receivers.http_protocol import BoundedProtocol, ConnectionLimits
from support.http_receiver import LIMIT, Received, http_receiver, read_to_end, status_of, with_limits
from support.processor import until

TLS = Path(__file__).parents[2] / "data" / "tls"
POST = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
QUICK = ConnectionLimits(header_time=0.2, header_size=4096, idle_time=600, connections=100)


@pytest.fixture
async def quick() -> AsyncIterator[Received]:
    async with http_receiver(options=with_limits(QUICK)) as received:
        yield received


async def serves(received: Received) -> bool:
    """Whether an ordinary request is still answered."""
    headers = {"content-type": "application/x-protobuf"}
    return (await received.client.post("/v1/traces", content=b"", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [b"", b"P", POST, POST + b"content-length: 0\r\n"],
    ids=["silent", "one-byte", "half-headers", "no-end"],
)
async def test_a_connection_without_a_whole_head_is_closed(quick: Received, sent: bytes) -> None:
    """Whoever connects has a time for the request's headers, however little of them there is."""
    reader, writer = await quick.connect()
    writer.write(sent)
    assert status_of(await read_to_end(reader)) == 408
    writer.close()
    assert quick.http_refused == ["header_time"]
    assert await serves(quick)


async def test_headers_that_drip_are_closed(quick: Received) -> None:
    """Bytes that keep coming do not extend the time of the headers."""
    reader, writer = await quick.connect()
    answer = asyncio.create_task(read_to_end(reader))
    writer.write(POST + b"x-drip: ")
    while not answer.done():
        writer.write(b"x")
        await asyncio.sleep(0.02)
    # A byte that arrives after the end resets the connection, and the answer may be lost with it.
    assert status_of(await answer) in {408, 0}
    writer.close()
    assert quick.http_refused == ["header_time"]


async def test_the_next_request_of_a_connection_has_the_same_time(quick: Received) -> None:
    """A second request that stops in its headers ends the connection, although the first was complete."""
    reader, writer = await quick.connect()
    writer.write(POST + b"content-length: 0\r\n\r\n")
    assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT)
    writer.write(POST)
    assert status_of(await read_to_end(reader)) == 408
    writer.close()


async def test_an_idle_connection_is_closed_after_its_own_time() -> None:
    """Between requests a connection may wait longer than inside of one, but not for ever."""
    limits = ConnectionLimits(header_time=600, idle_time=0.1)
    async with http_receiver(options=with_limits(limits)) as received:
        reader, writer = await received.connect()
        writer.write(POST + b"content-length: 0\r\n\r\n")
        assert (await read_to_end(reader)).startswith(b"HTTP/1.1 200 OK")
        writer.close()
    assert received.http_refused == []


async def test_a_request_under_way_has_no_time_of_headers() -> None:
    """The time of the headers ends with the headers: neither body nor answer is cut off by it."""
    go = asyncio.Event()

    async def wait(_: Request) -> bytes:
        await go.wait()
        return b""

    limits = ConnectionLimits(header_time=0.1, idle_time=600)
    async with http_receiver(wait, options=with_limits(limits)) as received:
        reader, writer = await received.connect()
        writer.write(POST + b"content-length: 2\r\n\r\n")
        await asyncio.sleep(0.3)
        writer.write(b"\n\0")
        await until(lambda: bool(received.requests))
        await asyncio.sleep(0.3)
        go.set()
        assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT)
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [b"content-length: 10\r\n\r\nhalf", b"transfer-encoding: chunked\r\n\r\n5\r\nhalf", b"content-length: 10\r\n\r\n"],
    ids=["length", "chunked", "none-of-it"],
)
async def test_a_body_that_stops_is_refused(sent: bytes) -> None:
    """A body has a time; past it the client is told to try again, and the connection ends."""
    options = with_limits(body=BodyLimits(size=1000, time=0.2, rate=0))
    async with http_receiver(options=options) as received:
        reader, writer = await received.connect()
        writer.write(POST + sent)
        answer = await read_to_end(reader)
        writer.close()
        assert await serves(received)
    assert status_of(answer) == 503
    assert b"--body-timeout" in answer
    assert received.refused == [(Signal.TRACES, "too_slow")]


async def test_a_body_that_drips_is_refused() -> None:
    """Bytes that keep coming do not extend the time of the body."""
    options = with_limits(body=BodyLimits(size=1000, time=0.3, rate=0))
    async with http_receiver(options=options) as received:
        reader, writer = await received.connect()
        answer = asyncio.create_task(read_to_end(reader))
        writer.write(POST + b"content-length: 1000\r\n\r\n")
        while not answer.done():
            writer.write(b"x")
            await asyncio.sleep(0.02)
        writer.close()
    assert status_of(await answer) in {503, 0}
    assert received.refused == [(Signal.TRACES, "too_slow")]


async def test_a_body_below_the_minimum_rate_is_refused() -> None:
    """Each byte buys its share of time beyond the first seconds, and silence buys none."""
    options = with_limits(body=BodyLimits(size=1000, time=600, rate=1000, rate_grace=0.1))
    async with http_receiver(options=options) as received:
        reader, writer = await received.connect()
        writer.write(POST + b"content-length: 1000\r\n\r\nhalf")
        answer = await read_to_end(reader)
        writer.close()
    assert status_of(answer) == 503
    assert b"--http-min-body-rate" in answer


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "endless"])
async def test_headers_over_the_limit_are_431(quick: Received, whole: bool) -> None:
    """Line and headers together have a size, whether their end has come or not."""
    reader, writer = await quick.connect()
    writer.write(POST + b"x-long: " + b"x" * 100_000 + (b"\r\n\r\n" if whole else b""))
    assert status_of(await read_to_end(reader)) in {431, 0}
    writer.close()
    assert quick.http_refused == ["header_size"]
    assert await serves(quick)


async def test_headers_over_the_limit_say_so() -> None:
    """A client that waits for the answer reads 431."""
    async with http_receiver(options=with_limits(ConnectionLimits(header_size=4096))) as received:
        reader, writer = await received.connect()
        writer.write(POST + b"x-long: " + b"x" * 5000)
        assert status_of(await read_to_end(reader)) == 431
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0\n\n",
        b"\r\n\r\n",
        b"POST /v1/traces HTTP/1.1\r\n\r\n",
        POST + b"content-length: -1\r\n\r\n",
        POST + b"content-length: 1\r\ncontent-length: 2\r\n\r\n",
        # Whoever stands in front may go by the other one of the two, and what follows would be a request of its own.
        POST + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["tls", "http2", "version", "zeros", "line-ends", "no-host", "negative-length", "two-lengths", "two-framings"],
)
async def test_what_is_not_http_1_is_refused(quick: Received, sent: bytes) -> None:
    """Another protocol on this port gets a plain refusal and no word in the log."""
    reader, writer = await quick.connect()
    writer.write(sent)
    assert status_of(await read_to_end(reader)) in {400, 408, 505}
    writer.close()
    assert len(quick.http_refused) == 1
    assert await serves(quick)


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"5\r\nhello!!\r\n", b"-1\r\n"])
async def test_a_broken_chunk_ends_the_request(chunk: bytes) -> None:
    """A chunked body that does not add up is not handed on."""
    async with http_receiver() as received:
        reader, writer = await received.connect()
        writer.write(POST + b"transfer-encoding: chunked\r\n\r\n" + chunk)
        assert status_of(await read_to_end(reader)) == 400
        writer.close()
        assert received.requests == []
        assert received.http_refused == ["not_http"]


async def test_a_request_cut_off_by_its_client_is_not_handed_on() -> None:
    """Half a body and the end of the connection are nothing."""
    async with http_receiver() as received:
        _, writer = await received.connect()
        writer.write(POST + b"content-length: 10\r\n\r\nhalf")
        await writer.drain()
        await until(lambda: received.bytes_in_flight.held == 4)
        writer.close()
        await until(lambda: received.bytes_in_flight.held == 0)
    assert received.requests == []
    assert received.refused == []


async def test_connections_over_the_limit_are_answered_503() -> None:
    """One too many is told to come back, and the others are not disturbed."""
    limits = ConnectionLimits(header_time=600, idle_time=600, connections=3)
    async with http_receiver(options=with_limits(limits)) as received:
        held = [await received.connect() for _ in range(3)]
        reader, writer = await received.connect()
        answer = await read_to_end(reader)
        writer.close()
        held[0][1].write(POST + b"content-length: 0\r\nconnection: close\r\n\r\n")
        assert status_of(await read_to_end(held[0][0])) == 200
        for _, one in held:
            one.close()
        await until(lambda: not received.receiver.open_connections)
        assert await serves(received)
    assert status_of(answer) == 503
    assert b"retry-after: 1" in answer
    assert received.http_refused == ["connections"]


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    """Answers that nobody takes do not pile up."""
    limits = ConnectionLimits(header_time=0.2, header_size=4096, idle_time=600)
    response = b"\x12" + b"x" * 1_000_000

    async def much(_: Request) -> bytes:
        return response

    async with http_receiver(much, options=with_limits(limits)) as received:
        reader, writer = await received.connect()
        writer.transport.pause_reading()
        writer.write((POST + b"content-length: 0\r\n\r\n") * 50)
        await until(lambda: not received.receiver.open_connections)
        writer.close()
        assert reader.at_eof() is False
        assert await serves(received)
    assert received.http_refused == ["not_reading"]


async def test_a_silent_tls_handshake_is_closed() -> None:
    """The time of the headers also ends a TLS handshake that never happens."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "localhost.pem", TLS / "localhost.key")
    async with http_receiver(options=with_limits(QUICK), tls=context) as received:
        reader, writer = await received.connect()
        assert await read_to_end(reader) == b""
        writer.close()


async def test_stopping_lets_a_request_in_flight_finish() -> None:
    """Nothing new is accepted, idle connections end, and what is in flight is answered."""
    go = asyncio.Event()

    async def wait(_: Request) -> bytes:
        await go.wait()
        return b""

    async with http_receiver(wait) as received:
        idle_reader, idle_writer = await received.connect()
        reader, writer = await received.connect()
        writer.write(POST + b"content-length: 0\r\n\r\n")
        await until(lambda: bool(received.requests))
        stopping = asyncio.create_task(received.receiver.stop(LIMIT))
        assert await read_to_end(idle_reader) == b""
        with pytest.raises(ConnectionRefusedError):
            await received.connect()
        go.set()
        assert status_of(await read_to_end(reader)) == 200
        await stopping
        for one in (writer, idle_writer):
            one.close()


async def test_stopping_ends_what_outlasts_the_limit() -> None:
    """Past the limit a request is cancelled and not acknowledged."""
    never = asyncio.Event()

    async def wait(_: Request) -> bytes:
        await never.wait()
        return b""

    async with http_receiver(wait) as received:
        reader, writer = await received.connect()
        writer.write(POST + b"content-length: 0\r\n\r\n")
        await until(lambda: bool(received.requests))
        await received.receiver.stop(0.05)
        assert status_of(await read_to_end(reader)) != 200
        writer.close()


async def test_a_gzip_bomb_is_refused_early() -> None:
    """What a bomb would become is never held: the request ends at its size limit."""
    bomb = gzip.compress(bytes(200_000_000), 9)
    async with http_receiver() as received:
        headers = {"content-type": "application/x-protobuf", "content-encoding": "gzip"}
        response = await received.client.post("/v1/traces", content=bomb, headers=headers)
        assert await serves(received)
    assert response.status_code == 413


async def test_a_slow_client_that_reads_is_not_cut_off() -> None:
    """A large answer may take longer than its time as long as enough of it is read in each; then the time is over."""
    unread = iter([3_000_000, 2_000_000, 1_000_000, 999_999])

    class Line(asyncio.Transport):
        """A connection whose other end reads as `unread` says."""

        aborted = False

        def get_write_buffer_size(self) -> int:
            return next(unread)

        def abort(self) -> None:
            self.aborted = True

    line, refused = Line(), list[str]()
    config = Config(None, log_config=None)
    limits = ConnectionLimits(header_time=0.01)
    connection = BoundedProtocol(config, ServerState(), limits, refused.append)
    connection.connection_made(line)
    connection.pause_writing()
    await until(lambda: line.aborted)
    assert refused == ["not_reading"]
    assert next(unread, None) is None
    connection.connection_lost(ConnectionAbortedError())
