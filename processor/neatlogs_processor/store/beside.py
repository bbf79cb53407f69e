"""A store beside another destination: it is written first, because it can take the same request twice."""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol

from neatlogs_processor.core.request import Request
from neatlogs_processor.core.text import shown
from neatlogs_processor.errors import ProcessorError
from neatlogs_processor.telemetry import Seldom, Telemetry, logger

_MINUTE: Final = 60.0

BEST_EFFORT_SECONDS: Final = 2.0
"""How long a request waits for a store that is not required: the other destination must not suffer from it."""


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
        patience: How many seconds a request waits for a store that is not required.
    """

    def __init__(
        self,
        store: Destination,
        onward: Destination,
        *,
        required: bool,
        telemetry: Telemetry,
        patience: float = BEST_EFFORT_SECONDS,
    ) -> None:
        self._store = store
        self._onward = onward
        self._required = required
        self._telemetry = telemetry
        self._patience = patience
        self._seldom = Seldom(time.monotonic, again=_MINUTE)

    async def send(self, request: Request) -> bytes:
        """See `Destination.send`.

        Raises:
            ProcessorError: The other destination did not take it; with `required`, also where the store did not.
        """
        if self._required:
            await self._store.send(request)
        else:
            try:
                await asyncio.wait_for(self._store.send(request), self._patience)
            except asyncio.TimeoutError:
                # If its transaction has begun, it may be kept all the same.
                self._missed(request, "slow", f"it took longer than {self._patience:g} s")
            except ProcessorError as error:
                self._missed(request, error.reason, shown(str(error), limit=400))
            except Exception as error:  # noqa: BLE001  # a bug of the store must not cost the other destination
                self._telemetry.failed(error)
                # Its message may quote a payload.
                self._missed(request, "internal", type(error).__name__)
        return await self._onward.send(request)

    def _missed(self, request: Request, reason: str, cause: str) -> None:
        spans = 0 if request.enforced is None else request.enforced.counts.spans
        self._telemetry.counters.store_missed.add(spans, reason)
        if self._seldom.allows(reason):
            logger.warning(
                "spans went on without being stored (%s): %s; --store-required refuses them instead%s",
                reason,
                cause,
                self._seldom.skipped(),
            )
