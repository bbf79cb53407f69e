"""Bodies that stop halfway: what they may hold of the process's memory, over both protocols."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from support.half_grpc import HalfMessage, half_message
from support.http_receiver import read_to_end, status_of
from support.processor import LIMIT, peak_resident, program
from support.spans import request, root
from support.upstream import SERVICES, export, refused

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")

MIB = 2**20
EXPORT = f"/{SERVICES['traces']}/Export"
# Nothing ends for its time while a test looks.
FLAGS = ("--console", "--max-message-size", "8MiB", "--body-timeout", "10m", "--http-min-body-rate", "0")


async def test_half_arrived_grpc_messages_hold_so_many_times_the_message_size() -> None:
    """Of forty clients that send 7 of 8 MiB and stop, --max-concurrent-requests hold memory; the others are refused."""
    async with (
        program("--grpc-listen", "127.0.0.1:0", *FLAGS, "--max-concurrent-requests", "4") as processor,
        AsyncExitStack() as stack,
    ):
        target = await processor.ready()
        await export(target, request(root()))
        before = peak_resident(processor.process.pid)
        halves = [await stack.enter_async_context(half_message(target, EXPORT)) for _ in range(40)]
        await asyncio.wait_for(asyncio.gather(*(half.send(8 * MIB, 7 * MIB) for half in halves)), LIMIT)
        error = await refused(target, request(root()))
        grown = peak_resident(processor.process.pid) - before
    assert "--max-concurrent-requests" in (error.details() or "")
    assert sorted(_state(half) for half in halves) == ["holds"] * 4 + ["refused"] * 36
    # Four messages in gRPC's own buffers, which grow in steps; forty would be 280 MiB.
    assert grown < 100 * MIB, f"{grown / MIB:.0f} MiB"


def _state(half: HalfMessage) -> str:
    if half.ended:
        return "refused"
    return "holds" if half.sent == 7 * MIB else "waits"


async def test_half_arrived_http_bodies_hold_no_more_than_the_bytes_in_flight() -> None:
    """Of forty clients that send 7 of 8 MiB and stop, so many hold memory as fit --max-bytes-in-flight."""
    flags = (*FLAGS, "--max-bytes-in-flight", "16MiB")
    async with program("--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", *flags) as processor:
        target = await processor.ready()
        await export(target, request(root()))
        port = int((await processor.line("is ready")).partition("OTLP/HTTP on 127.0.0.1:")[2].partition(",")[0])
        before = peak_resident(processor.process.pid)
        connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        answers = [asyncio.create_task(read_to_end(reader)) for reader, _ in connections]
        await asyncio.wait_for(asyncio.gather(*(_send_half(writer) for _, writer in connections)), LIMIT)
        # Two bodies of 7 MiB fit, and a third may hold a part of what is left when the last of the others is refused.
        while sum(answer.done() for answer in answers) < 37:
            await asyncio.wait([one for one in answers if not one.done()], return_when=asyncio.FIRST_COMPLETED)
        grown = peak_resident(processor.process.pid) - before
        statuses = {status_of(answer.result()) for answer in answers if answer.done()}
        for _, writer in connections:
            writer.transport.abort()
        await asyncio.gather(*answers, return_exceptions=True)
    # A connection that is closed while its client still writes may be reset before the answer is read.
    assert statuses <= {503, 0}
    assert 503 in statuses
    # The budget, and what forty sockets and their parsers hold of bytes that are refused; sent were up to 280 MiB.
    assert grown < 140 * MIB, f"{grown / MIB:.0f} MiB"


async def _send_half(writer: asyncio.StreamWriter) -> None:
    lines = [
        "POST /v1/traces HTTP/1.1",
        "host: x",
        "content-type: application/x-protobuf",
        f"content-length: {8 * MIB}",
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        for _ in range(7 * 16):
            writer.write(bytes(MIB // 16))
            await writer.drain()
    except ConnectionError:
        return
