"""How many questions are answered at once, and the moments in which none is.

What a question reads cannot leave the log before it ends, and the log begins anew only while nobody reads it.
Questions that overlap without a gap would let it grow until the disk is full, however short each one is. So when the
log has become large, new questions wait for those that run, and then for the writer, which cuts it back with its next
transactions.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from neatlogs_processor.errors import StoreUnavailableError
from neatlogs_processor.store.files import LOG_BYTES

GAP_SECONDS: Final = 2.0
"""How long nothing is asked at most: where nobody writes, the log neither grows nor is cut back."""
_LOOK_SECONDS: Final = 0.02


class Places:
    """Lets questions in. Safe to use from any thread.

    Args:
        count: How many at once.
        patience: Seconds that one waits for its place.
        log_size: Returns how many bytes the log has.
        clock: Returns seconds.
    """

    def __init__(
        self,
        count: int,
        *,
        patience: float,
        log_size: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._count = count
        self._patience = patience
        self._log_size = log_size
        self._clock = clock
        self._changed = threading.Condition()
        self._inside = 0
        # The log may grow to this before there is a gap, and the time at which the gap ends whatever happens.
        self._bearable = 2 * LOG_BYTES
        self._emptying = False
        self._gap_ends: float | None = None

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Take a place for the length of a block.

        Raises:
            StoreUnavailableError: None became free in time.
        """
        end = self._clock() + self._patience
        with self._changed:
            while self._closed() or self._inside >= self._count:
                left = end - self._clock()
                if left <= 0:
                    raise StoreUnavailableError("too many questions wait for the store; ask again", retry_after=1.0)
                self._changed.wait(min(left, _LOOK_SECONDS) if self._emptying else left)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def _closed(self) -> bool:
        """Tell whether nobody may come in, because the log has to be cut back."""
        size = self._log_size()
        if not self._emptying:
            self._emptying = size > self._bearable
            return self._emptying
        if self._inside:
            return True
        if self._gap_ends is None:
            self._gap_ends = self._clock() + GAP_SECONDS
        if size > LOG_BYTES and self._clock() < self._gap_ends:
            return True
        # Where it did not help (another process reads, or nobody writes) it is tried again when the log has grown.
        self._emptying, self._gap_ends = False, None
        self._bearable = max(2 * LOG_BYTES, size + LOG_BYTES)
        self._changed.notify_all()
        return False
