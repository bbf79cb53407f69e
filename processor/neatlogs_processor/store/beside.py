"""A store beside another destination: it is written first, because it can take the same request twice."""

from __future__ import annotations

import time
from typing import Final, Protocol

from neatlogs_processor.core.request import Request
from neatlogs_processor.core.text import shown
from neatlogs_processor.errors import ProcessorError
from neatlogs_processor.telemetry import Seldom, Telemetry, logger

_MINUTE: Final = 60.0


class Destination(Protocol):
    """What a request can be handed to."""

    async def send(self, request: Request) -> bytes:
        """Deliver the request and return the serialised response."""
        ...


class StoreBeside:
    """A sender that writes the store, then hands the request on; the answer is the other destination's.

    Args:
        store: The store.
        onward: Where the request goes besides.
        required: Whether a request that the store did not take is refused. Otherwise the store is best effort: its
            failures are counted and logged, and the request goes on.
        telemetry: Counts and logs.
    """

    def __init__(self, store: Destination, onward: Destination, *, required: bool, telemetry: Telemetry) -> None:
        self._store = store
        self._onward = onward
        self._required = required
        self._telemetry = telemetry
        self._seldom = Seldom(time.monotonic, again=_MINUTE)

    async def send(self, request: Request) -> bytes:
        """See `Destination.send`.

        Raises:
            ProcessorError: The other destination did not take it; with `required`, also where the store did not.
        """
        try:
            await self._store.send(request)
        except Exception as error:
            if self._required:
                raise
            self._missed(request, error)
        return await self._onward.send(request)

    def _missed(self, request: Request, error: Exception) -> None:
        spans = 0 if request.enforced is None else request.enforced.counts.spans
        if isinstance(error, ProcessorError):
            reason, cause = error.reason, shown(str(error), limit=400)
        else:
            self._telemetry.failed(error)
            # Its message may quote a payload.
            reason, cause = "internal", type(error).__name__
        self._telemetry.counters.store_missed.add(spans, reason)
        if self._seldom.allows(reason):
            logger.warning(
                "spans went on without being stored (%s): %s; --store-required refuses them instead%s",
                reason,
                cause,
                self._seldom.skipped(),
            )
