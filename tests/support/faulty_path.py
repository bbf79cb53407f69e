"""A TCP path to an upstream that is broken for the first connections and then works.

async with FaultyPath(upstream.port, "reset", times=2) as path:
    ...  # the first two connections to path.port are reset, later ones reach the upstream
"""

from __future__ import annotations

import asyncio
import socket
import struct
from types import TracebackType
from typing import Final

FAULTS: Final = ("black hole", "drip", "reset", "reset after the request", "close", "half an answer", "garbage")
"""What can be wrong: nothing is read or said; a byte now and then; the connection is reset at once, or when something
has arrived; it is closed; it is closed in the middle of an answer; what comes is no protocol."""

_HALF_ANSWERS: Final = {
    # Half of a SETTINGS frame.
    "grpc": b"\0\0\x06\x04\0\0\0\0\0\0\x03",
    "http/protobuf": b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 10\r\n\r\nhalf",
}


class FaultyPath:
    """Listens on a free port; started on entry, stopped on exit.

    Args:
        upstream: The port that it leads to.
        fault: One of `FAULTS`.
        protocol: What is spoken: `grpc` or `http/protobuf`.
        times: How many connections are broken.
    """

    def __init__(self, upstream: int, fault: str, *, protocol: str, times: int = 1) -> None:
        self._upstream = upstream
        self._fault = fault
        self._protocol = protocol
        self._left = times
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.broken = 0
        """How many connections have been broken."""

    def heal(self) -> None:
        """Break no further connection."""
        self._left = 0

    async def __aenter__(self) -> FaultyPath:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._left > 0:
                self._left -= 1
                self.broken += 1
                await self._break(reader, writer)
            else:
                await self._pass(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _break(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._fault == "black hole":
            await asyncio.Event().wait()
        elif self._fault == "drip":
            for byte in _HALF_ANSWERS[self._protocol][:9] + b"\0" * 10_000:
                writer.write(bytes((byte,)))
                await writer.drain()
                await asyncio.sleep(0.05)
        elif self._fault == "garbage":
            writer.write(b"SSH-2.0-nothing\r\n" * 100)
            await writer.drain()
        elif self._fault != "reset":
            await reader.read(65536)
            if self._fault == "half an answer":
                writer.write(_HALF_ANSWERS[self._protocol])
                await writer.drain()
        if self._fault.startswith("reset"):
            # Closing with this option resets the connection instead of ending it.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._upstream)
        try:
            await asyncio.wait(
                [asyncio.create_task(_copy(reader, back)), asyncio.create_task(_copy(there, writer))],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            back.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
