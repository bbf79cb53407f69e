"""How long to wait before the next try. Pure: the random number is an argument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Exponential backoff with full jitter.

    Full jitter spreads clients that failed at the same moment over the whole interval, so they do not come back at
    the same moment too.

    Attributes:
        initial: Upper bound of the first wait, in seconds.
        factor: By how much the bound grows with each try.
        maximum: What the bound never exceeds, in seconds.
    """

    initial: float = 0.25
    factor: float = 2.0
    maximum: float = 5.0

    def delay(self, attempt: int, *, chance: float, retry_after: float | None = None) -> float:
        """Return the seconds to wait after a failed try.

        Args:
            attempt: How many tries have failed so far, 1 or more.
            chance: A random number, 0 <= chance < 1.
            retry_after: Seconds that the upstream asked to wait. The wait is never shorter than this; the jitter
                comes on top, because every client of that upstream was told the same number.
        """
        # The exponent is bounded because a float overflows at about 2**1024.
        bound = min(self.maximum, self.initial * self.factor ** min(attempt - 1, 64))
        if retry_after is None:
            return bound * chance
        return retry_after + min(bound, retry_after) * chance * 0.25


def overload_delay(chance: float) -> float:
    """Return the seconds after which a client that found the processor full should come back: 1 to 2."""
    return 1.0 + chance
