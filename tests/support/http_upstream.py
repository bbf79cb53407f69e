"""An OTLP/HTTP server that answers as it is told to and keeps what it received; a bare one on asyncio's streams.

async with HttpUpstream(HttpReply(503), HttpReply()) as upstream:
    ...  # the first request is refused, every later one accepted
"""

from __future__ import annotations

import asyncio
import gzip
import ssl
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import TracebackType

PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True)
class HttpReply:
    """One answer.

    Attributes:
        status: The status.
        body: The body.
        headers: The headers; `content-length` is added.
        after: The answer waits for this event.
        raw: What is written instead of an answer; then the connection is closed.
    """

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (("content-type", PROTOBUF),)
    after: asyncio.Event | None = None
    raw: bytes | None = None


@dataclass(frozen=True)
class HttpReceived:
    """One request as it arrived.

    Attributes:
        connection: The number of the connection, counted from 0.
        path: The path.
        headers: The headers; names in lower case.
        sent: The body as it was sent.
    """

    connection: int
    path: str
    headers: dict[str, str]
    sent: bytes

    @property
    def body(self) -> bytes:
        """The body without its compression."""
        return gzip.decompress(self.sent) if self.headers.get("content-encoding") == "gzip" else self.sent


@dataclass
class HttpUpstream:
    """The server: started on entry, stopped on exit.

    Args:
        replies: One after the other; the last one repeats.
        path: A socket file to listen on, instead of a port.
        tls: For a server that speaks TLS.
        port: 0 takes any.
    """

    received: list[HttpReceived] = field(default_factory=list)
    port: int = 0

    def __init__(
        self, *replies: HttpReply, path: Path | None = None, tls: ssl.SSLContext | None = None, port: int = 0
    ) -> None:
        self.received = []
        self.port = port
        self._replies = replies or (HttpReply(),)
        self._path = path
        self._tls = tls
        self._connections = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrived = asyncio.Condition()

    @property
    def endpoint(self) -> str:
        """Its base."""
        if self._path is not None:
            return f"unix:{self._path}"
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}"

    @property
    def bodies(self) -> list[bytes]:
        """The requests' bodies, without compression."""
        return [request.body for request in self.received]

    async def wait_for(self, count: int) -> None:
        """Wait until so many requests have arrived."""
        async with self._arrived:
            await asyncio.wait_for(self._arrived.wait_for(lambda: len(self.received) >= count), 30)

    def hang_up(self) -> None:
        """Close all connections."""
        for writer in list(self._open):
            writer.transport.abort()

    async def __aenter__(self) -> HttpUpstream:
        if self._path is not None:
            self._server: asyncio.Server = await asyncio.start_unix_server(self._serve, self._path)
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.hang_up()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        number, self._connections = self._connections, self._connections + 1
        try:
            while await self._answer(number, reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._open.discard(writer)
            writer.close()

    async def _answer(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await reader.readexactly(int(headers["content-length"]))
        reply = self._replies[min(len(self.received), len(self._replies) - 1)]
        async with self._arrived:
            self.received.append(HttpReceived(number, head[0].split()[1], headers, body))
            self._arrived.notify_all()
        if reply.after is not None:
            await reply.after.wait()
        if reply.raw is not None:
            writer.write(reply.raw)
            await writer.drain()
            return False
        lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in reply.headers]
        lines += [f"content-length: {len(reply.body)}", "", ""]
        writer.write("\r\n".join(lines).encode() + reply.body)
        await writer.drain()
        return True
