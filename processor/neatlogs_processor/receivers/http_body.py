"""The body of one HTTP request: read within its time, its rate and its size, undone if it is compressed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from neatlogs_processor.core.inflate import Inflater
from neatlogs_processor.errors import NotOtlpHttpError, RequestTooLargeError, SlowRequestError
from neatlogs_processor.receivers.in_flight import Lease

_DISCARD_TIME: Final = 1.0
"""Seconds for which the rest of a refused body is read before the answer."""


@dataclass(frozen=True)
class BodyLimits:
    """What one body may cost.

    Attributes:
        size: Bytes, before and after decompression.
        time: Seconds from the headers to its end.
        rate: Bytes a second that have to arrive on average; 0 asks for nothing.
        rate_grace: Seconds in which it may be slower: connections begin slowly.
    """

    size: int
    time: float = 30.0
    rate: int = 1024
    rate_grace: float = 5.0


class HttpBody:
    """See the module.

    Args:
        receive: The ASGI callable that the body comes from.
        headers: The request's headers.
        limits: The limits.
    """

    def __init__(self, receive: Receive, headers: Mapping[str, str], limits: BodyLimits) -> None:
        self._receive = receive
        self._limits = limits
        self._length = int(headers["content-length"]) if headers.get("content-length", "").isdecimal() else 0
        self._encoding = headers.get("content-encoding", "").strip().lower()
        self._waits_to_send = headers.get("expect", "").lower() == "100-continue"
        self.complete = False

    async def read(self, lease: Lease) -> bytes:
        """Return the body, decompressed.

        Args:
            lease: Grows with what is returned.

        Raises:
            NotOtlpHttpError: The content encoding is not supported.
            RequestTooLargeError: It is over its limit.
            SlowRequestError: It did not arrive in time.
            MalformedOtlpError: It is not gzip although it says so.
            OverloadedError: There is no room for it now.
            ClientDisconnect: The client went away.
        """
        undo, finish = self._undo(lease)
        if self._length > self._limits.size:
            raise self._too_large()
        pieces: list[bytes] = []
        received = 0
        started = asyncio.get_running_loop().time()
        while not self.complete:
            piece = await self._next(started, received)
            received += len(piece)
            if received > self._limits.size:
                raise self._too_large()
            if piece:
                pieces += undo(piece)
        if received:
            finish()
        return b"".join(pieces)

    async def discard(self) -> None:
        """Read the rest of a refused body for a short time, so that a client which is still sending gets the answer.

        A connection that is closed while bytes arrive is reset, and the answer is lost with it.
        """
        if self._waits_to_send or self.complete:
            return
        started = asyncio.get_running_loop().time()
        received = 0
        try:
            while not self.complete and received <= self._limits.size:
                received += len(await self._message(_DISCARD_TIME - (asyncio.get_running_loop().time() - started)))
        except (asyncio.TimeoutError, ClientDisconnect):
            return

    async def gone(self) -> None:
        """Return when the client goes away. For a body that has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next(self, started: float, received: int) -> bytes:
        limits = self._limits
        # Each byte buys time, up to the limit; silence buys none.
        allowed = min(limits.time, limits.rate_grace + received / limits.rate if limits.rate else limits.time)
        try:
            return await self._message(allowed - (asyncio.get_running_loop().time() - started))
        except asyncio.TimeoutError:
            if allowed < limits.time:
                raise SlowRequestError(
                    f"the body arrives at less than {limits.rate} bytes a second (--http-min-body-rate)"
                ) from None
            raise SlowRequestError(f"the body did not arrive within {limits.time:g} s (--body-timeout)") from None

    async def _message(self, timeout: float) -> bytes:
        message: Any = await asyncio.wait_for(self._receive(), max(0.0, timeout))
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        self.complete = not message.get("more_body", False)
        self._waits_to_send = False
        return bytes(message.get("body", b""))

    def _undo(self, lease: Lease) -> tuple[Callable[[bytes], list[bytes]], Callable[[], None]]:
        if self._encoding in ("", "identity"):

            def keep(piece: bytes) -> list[bytes]:
                lease.grow(len(piece))
                return [piece]

            return keep, lambda: None
        if self._encoding not in ("gzip", "x-gzip"):
            raise NotOtlpHttpError(
                "the content encoding is not supported: send gzip or none",
                http_status=415,
                headers={"accept-encoding": "gzip"},
            )
        inflater = Inflater(lease.grow)
        return inflater.feed, inflater.finish

    def _too_large(self) -> RequestTooLargeError:
        return RequestTooLargeError(f"the body has more than {self._limits.size} bytes (--max-message-size)")
