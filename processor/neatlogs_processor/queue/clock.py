"""The queue's own time: it survives restarts, and never runs backwards."""

from __future__ import annotations

import time
from collections.abc import Callable


class QueueClock:
    """Tells the time by which requests age.

    It starts at the wall clock's time, or at the newest request's where that is later, and then goes on with a
    monotonic clock. So no age is negative, ids and arrival times have the same order, and a wall clock that jumps while
    the processor runs expires nothing.

    Args:
        newest: When the newest request in the queue arrived, if there is one.
        wall: Returns seconds since the epoch; read once.
        monotonic: Returns seconds.
    """

    def __init__(
        self,
        newest: float | None = None,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._offset = max(wall(), newest or 0.0) - monotonic()

    def now(self) -> float:
        """Return seconds since the epoch, as this queue counts them."""
        return self._offset + self._monotonic()
