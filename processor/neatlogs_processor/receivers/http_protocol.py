"""One HTTP/1.1 connection, with limits on what it may cost.

uvicorn closes a connection that is idle between two requests and none other: neither one that never says anything, nor
one that stops in the middle of its headers, nor one that does not read its answers. Here each of these has a time.
The time of a body is the application's to keep: it alone can still answer.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

# What it would say is of hostile or broken clients, once for each, and unbounded. Refusals are counted instead.
_UNHEARD: Final = logging.Logger("uvicorn", level=logging.CRITICAL + 1)

_LEAST_READ: Final = 256 * 1024
"""How many bytes of an answer a client has to read within `header_time`."""


@dataclass(frozen=True)
class ConnectionLimits:
    """What one connection may cost, and how many there may be.

    Attributes:
        header_time: Seconds from the connection, or from a request's first byte, to the end of its headers. Also the
            time of a TLS handshake, and of a client that reads nothing, or next to nothing, of what it is sent.
        header_size: Bytes of a request's line and headers together.
        idle_time: Seconds that a connection may wait for its next request.
        connections: How many connections may be open; more are answered 503 and closed.
    """

    header_time: float = 10.0
    header_size: int = 64 * 1024
    idle_time: float = 60.0
    connections: int = 1000


class BoundedProtocol(H11Protocol):
    """See the module.

    Args:
        config: uvicorn's configuration.
        state: What the connections of one server share.
        limits: The limits.
        draining: Whether a connection is to end with its next answer.
        refused: Called with a word where a connection is refused or ended for breaking a limit: `connections`,
            `header_time`, `header_size`, `not_http`, `not_reading`.
    """

    def __init__(
        self,
        config: Config,
        state: ServerState,
        limits: ConnectionLimits,
        refused: Callable[[str], None],
        draining: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(config, state, {})
        self.logger = _UNHEARD
        self.access_log = False
        self._limits = limits
        self._refused = refused
        self._draining = draining
        self._guarded = self.app
        self.app = self._guard
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_for_headers = False
        # Bytes that the client had not read when its time began.
        self._unread = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # streams bring no other
        """Greet, or refuse, a connection."""
        super().connection_made(transport)
        self._expect_headers()
        if len(self.connections) > self._limits.connections:
            self._refuse("connections", HTTPStatus.SERVICE_UNAVAILABLE, "retry-after: 1\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        self._stop_timer()
        super().connection_lost(exc)
        # uvicorn leaves it running after an error.
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Take bytes, and time the headers that they may be the beginning of."""
        if self.transport.is_closing():
            return
        headers = [(b"date", formatdate(usegmt=True).encode())]
        if self._draining():
            headers.append((b"connection", b"close"))
        self.server_state.default_headers = headers
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            if self._waiting_for_headers:
                self._stop_timer()
        elif self._timer is None and not self.transport.is_closing():
            self._expect_headers()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's signature
        """Answer what is no HTTP request, where an answer is still possible, and close."""
        # uvicorn calls this while it handles h11's error, which knows the fitting status.
        error = sys.exc_info()[1]
        status = HTTPStatus(getattr(error, "error_status_hint", 400))
        too_large = status is HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        self._refuse("header_size" if too_large else "not_http", status)

    def pause_writing(self) -> None:
        """Give a client that does not read its answers a last time."""
        super().pause_writing()
        self._unread = self.transport.get_write_buffer_size()
        self._start_timer(self._not_reading)

    def resume_writing(self) -> None:
        """Go on."""
        self._stop_timer()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        super().timeout_keep_alive_handler()
        self._end()

    async def _guard(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer what h11 lets through: headers that came in one piece, however long, any version of HTTP, and a body
        whose end is said in two ways.
        """
        if scope["http_version"] not in ("1.0", "1.1"):
            reason, status = "not_http", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
        elif {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}:
            # https://www.rfc-editor.org/rfc/rfc9112#section-6.1
            reason, status = "not_http", HTTPStatus.BAD_REQUEST
        elif sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > self._limits.header_size:
            reason, status = "header_size", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        else:
            await self._guarded(scope, receive, send)
            return
        self._refused(reason)
        headers = [(b"content-length", b"0"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": status.value, "headers": headers})
        await send({"type": "http.response.body"})

    def _expect_headers(self) -> None:
        self._start_timer(self._no_headers)
        self._waiting_for_headers = True

    def _no_headers(self) -> None:
        self._timer = None
        self._refuse("header_time", HTTPStatus.REQUEST_TIMEOUT)

    def _not_reading(self) -> None:
        self._timer = None
        # A large answer takes its time on a slow line; what counts is that it is being read.
        unread = self.transport.get_write_buffer_size()
        if self._unread - unread >= _LEAST_READ:
            self._unread = unread
            self._start_timer(self._not_reading)
            return
        self._refused("not_reading")
        self.transport.abort()

    def _refuse(self, reason: str, status: HTTPStatus, headers: str = "") -> None:
        """Say why without h11, whose state may not allow it any more, and close."""
        self._refused(reason)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and not self.transport.is_closing():
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-length: 0\r\nconnection: close\r\n{headers}\r\n"
            self.transport.write(head.encode())
        self._end()

    def _end(self) -> None:
        """Close; what is not sent by the end of the time is not sent at all."""
        self._start_timer(self.transport.abort)
        self.transport.close()

    def _start_timer(self, then: Callable[[], Any]) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(self._limits.header_time, then)

    def _stop_timer(self) -> None:
        self._waiting_for_headers = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
