"""Senders: links with one method, chained around an exporter.

    Budget -> Retry -> exporter

Each link knows only the next one. An exporter raises `ExportError`; what comes out of the chain is either the
upstream's response or an error that tells the client whether to come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from neatlogs_processor.core.backoff import Backoff
from neatlogs_processor.core.request import Request
from neatlogs_processor.errors import UpstreamUnavailableError

CLIENT_MARGIN = 0.5
"""Seconds before the client's deadline at which we give up, so that our answer still reaches it."""

WORTHWHILE = 0.05
"""Seconds that must be left for another try; one that is cut off at once would only hide the upstream's answer."""


class Sender(Protocol):
    """Delivers a request, or says why not."""

    async def send(self, request: Request) -> bytes:
        """Deliver the request and return the serialised response.

        Returns:
            The destination's `Export…ServiceResponse` as it came; it may hold a `partial_success`.

        Raises:
            ExportError: The destination did not accept the request.
        """
        ...


class Budget:
    """Gives all tries of a request one deadline.

    The budget ends half a second before the client's own deadline (or at half of what is left, where that is under
    one second) and never later than `limit`. It is only written down here, as the request's deadline: whatever waits
    further down the chain keeps it.

    Args:
        sender: The next link.
        limit: Seconds.
    """

    def __init__(self, sender: Sender, *, limit: float) -> None:
        self._sender = sender
        self._limit = limit

    async def send(self, request: Request) -> bytes:
        """See `Sender.send`."""
        now = asyncio.get_running_loop().time()
        budget = self._limit
        if request.deadline is not None:
            left = max(0.0, request.deadline - now)
            budget = min(budget, left - min(CLIENT_MARGIN, left / 2))
        return await self._sender.send(replace(request, deadline=now + budget))


class Retry:
    """Tries again what may be tried again, until the request's deadline.

    Args:
        sender: The next link.
        backoff: How long to wait between tries.
        chance: Returns a random number, 0 <= chance < 1.
        sleep: Waits the given seconds.
        on_retry: Called before each try after the first.
    """

    def __init__(
        self,
        sender: Sender,
        *,
        backoff: Backoff,
        chance: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_retry: Callable[[], None] = lambda: None,
    ) -> None:
        self._sender = sender
        self._backoff = backoff
        self._chance = chance
        self._sleep = sleep
        self._on_retry = on_retry

    async def send(self, request: Request) -> bytes:
        """See `Sender.send`. Raises the last try's error when no time is left for another."""
        attempt = 0
        clock = asyncio.get_running_loop().time
        while True:
            attempt += 1
            try:
                return await self._sender.send(request)
            except UpstreamUnavailableError as error:
                delay = self._backoff.delay(attempt, chance=self._chance(), retry_after=error.retry_after)
                if request.deadline is not None and clock() + delay + WORTHWHILE >= request.deadline:
                    raise
            await self._sleep(delay)
            self._on_retry()
