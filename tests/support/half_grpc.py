"""A gRPC client that sends a part of a message and then nothing: no library would do so, hence HTTP/2 by hand.

Frames and windows: https://www.rfc-editor.org/rfc/rfc9113; the message's prefix:
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK = END_STREAM = 0x1
_END_HEADERS = 0x4
_INITIAL_WINDOW_SIZE = 0x4
_FRAME = 16_384


class HalfMessage:
    """One request, of whose message a part is sent as fast as the server allows. Made by `half_message`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._stream_window = self._connection_window = 65_535
        self._initial = 65_535
        self._changed = asyncio.Condition()
        self.sent = 0
        self.ended = False
        """Whether the server has answered, although the message is not complete."""

    def begin(self, path: str) -> None:
        """Send the preface and the request's headers."""
        headers = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers"}
        headers["content-type"] = "application/grpc"
        # Literals that enter no table: https://www.rfc-editor.org/rfc/rfc7541#section-6.2.2
        block = b"".join(
            b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
            for name, value in headers.items()
        )
        self._writer.write(_PREFACE)
        self._frame(_SETTINGS, 0, 0, b"")
        self._frame(_HEADERS, _END_HEADERS, 1, block)

    async def send(self, announced: int, size: int) -> None:
        """Announce a message, and send that much of it or what the server takes before it ends the request."""
        left = size
        await self._piece(b"\0" + struct.pack(">I", announced))
        while left and await self._piece(bytes(min(_FRAME, left))):
            left -= min(_FRAME, left)
            self.sent = size - left

    async def listen(self) -> None:
        """Take what the server sends until it closes the connection."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(struct.unpack(">I", b"\0" + head[:3])[0])
                async with self._changed:
                    self._take(head[3], head[4], struct.unpack(">I", head[5:])[0], payload)
                    self._changed.notify_all()
        async with self._changed:
            self.ended = True
            self._changed.notify_all()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _WINDOW_UPDATE:
            (more,) = struct.unpack(">I", payload)
            if stream:
                self._stream_window += more
            else:
                self._connection_window += more
        elif kind == _SETTINGS and not flags & _ACK:
            for key, value in struct.iter_unpack(">HI", payload):
                if key == _INITIAL_WINDOW_SIZE:
                    self._stream_window += value - self._initial
                    self._initial = value
            self._frame(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING and not flags & _ACK:
            self._frame(_PING, _ACK, 0, payload)
        elif kind in (_RST_STREAM, _GOAWAY) or (kind == _HEADERS and flags & END_STREAM):
            self.ended = True

    async def _piece(self, content: bytes) -> bool:
        """Send one frame of data once there is room for it; return whether it was sent."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: self.ended or min(self._stream_window, self._connection_window) >= len(content)
            )
            if self.ended:
                return False
            self._stream_window -= len(content)
            self._connection_window -= len(content)
        self._frame(_DATA, 0, 1, content)
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()
        return True

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        self._writer.write(struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream))
        self._writer.write(payload)


@contextlib.asynccontextmanager
async def half_message(target: str, path: str) -> AsyncIterator[HalfMessage]:
    """A connection of its own with one request on it, whose message has not begun."""
    host, _, port = target.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    half = HalfMessage(reader, writer)
    listening = asyncio.create_task(half.listen())
    try:
        half.begin(path)
        yield half
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        writer.transport.abort()
