"""How many bytes of requests the receivers hold together, and who may add to them."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from neatlogs_processor.core.backoff import overload_delay
from neatlogs_processor.errors import OverloadedError, RequestTooLargeError


class BytesInFlight:
    """The bytes of all requests that have not been answered, over all receivers. For the event loop's thread.

    Args:
        limit: How many bytes there may be (`--max-bytes-in-flight`).
        max_message_size: How many of them one request may have, before and after decompression (`--max-message-size`).
        chance: Returns a random number, 0 <= chance < 1.
    """

    def __init__(self, limit: int, *, max_message_size: int, chance: Callable[[], float]) -> None:
        self.limit = limit
        self.max_message_size = max_message_size
        self.held = 0
        self._chance = chance

    def lease(self) -> Lease:
        """Return one request's share, empty so far. Use it as a context manager: leaving gives the bytes back."""
        return Lease(self)

    def take(self, size: int) -> None:
        """Count bytes in.

        Raises:
            OverloadedError: There is no room for them now.
        """
        if self.held + size > self.limit:
            raise self.overloaded(f"requests of {self.held} bytes are in flight (--max-bytes-in-flight)")
        self.held += size

    def overloaded(self, message: str) -> OverloadedError:
        """Return the error that asks a client to come back a little later."""
        return OverloadedError(message, retry_after=overload_delay(self._chance()))

    def give_back(self, size: int) -> None:
        """Count bytes out."""
        self.held -= size


class Lease:
    """The share of one request in one form: grows while its bytes arrive, ends with the answer.

    A compressed request holds two while it is decompressed.
    """

    def __init__(self, bytes_in_flight: BytesInFlight) -> None:
        self._all = bytes_in_flight
        self._size = 0

    def grow(self, size: int) -> None:
        """Add bytes to the share, before they are kept.

        Raises:
            RequestTooLargeError: The request is over its own limit.
            OverloadedError: There is no room for them now.
        """
        if self._size + size > self._all.max_message_size:
            raise RequestTooLargeError(
                f"the request has more than {self._all.max_message_size} bytes (--max-message-size)"
            )
        self._all.take(size)
        self._size += size

    def end(self) -> None:
        """Give the bytes back."""
        self._all.give_back(self._size)
        self._size = 0

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()
