"""What can be counted and measured. Not thread-safe: for the event loop."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Final

DURATION_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: from a sidecar that answers at once to the longest that `--upstream-timeout` usually allows."""


class Histogram:
    """How often a duration fell into each bucket, for each value of one label.

    Args:
        name: Without the program's prefix; it ends with its unit.
        description: A sentence.
        label: The label.
        values: All values of the label: each is there from the beginning, with nothing in it.
        bounds: Upper bounds of the buckets, ascending; what is above the last falls into one more.
    """

    def __init__(
        self,
        name: str,
        description: str,
        label: str,
        values: tuple[str, ...],
        bounds: tuple[float, ...] = DURATION_BUCKETS,
    ) -> None:
        self.name = name
        self.description = description
        self.label = label
        self.bounds = bounds
        self._counts = {value: [0] * (len(bounds) + 1) for value in values}
        self._sums = dict.fromkeys(values, 0.0)

    def observe(self, amount: float, value: str) -> None:
        """Count an observation under a value of the label."""
        self._counts[value][bisect_left(self.bounds, amount)] += 1
        self._sums[value] += amount

    def __iter__(self) -> Iterator[tuple[str, list[int], float]]:
        """Each value of the label, the number of observations in each bucket alone, and their sum."""
        return ((value, list(counts), self._sums[value]) for value, counts in self._counts.items())


class Gauge:
    """A number that goes up and down, asked for when somebody looks.

    Args:
        name: Without the program's prefix; it ends with its unit, where it has one.
        description: A sentence.
    """

    def __init__(self, name: str, description: str) -> None:
        self.name = name
        self.description = description
        self.read: Callable[[], float] | None = None
        """Returns the number. While nobody has set it, there is nothing to measure, and the gauge is not shown."""


class Gauges:
    """The operator's gauges."""

    def __init__(self) -> None:
        self.ready = Gauge("ready", "1 while requests are taken, as /readyz says, else 0.")
        self.requests_in_flight = Gauge("requests_in_flight", "Requests that are being handled.")
        self.requests_limit = Gauge("requests_in_flight_limit", "How many there may be: --max-concurrent-requests.")
        self.bytes_in_flight = Gauge("bytes_in_flight", "Bytes of requests that are being received or handled.")
        self.bytes_limit = Gauge("bytes_in_flight_limit", "How many there may be: --max-bytes-in-flight.")
        self.queue_requests = Gauge("queue_waiting_requests", "Requests that wait in the durable queue.")
        self.queue_bytes = Gauge("queue_waiting_bytes", "Bytes of the requests that wait in the durable queue.")
        self.queue_bytes_limit = Gauge("queue_bytes_limit", "How many may wait there: --queue-max-bytes.")
        self.queue_oldest_age = Gauge(
            "queue_oldest_age_seconds", "For how long the oldest request has waited in the durable queue."
        )
        self.queue_full = Gauge("queue_full", "1 while the durable queue refuses requests, or soon will, else 0.")
        self.dead_letters = Gauge("queue_dead_letters", "Requests that the upstream refused for good, kept aside.")
        self.dead_letter_bytes = Gauge("queue_dead_letter_bytes", "Bytes of the requests that are kept aside.")
        self.held_spans = Gauge("inherit_held_spans", "Spans on the disk that wait for the root of their trace.")
        self.held_bytes = Gauge("inherit_held_bytes", "Bytes of the spans that wait for the root of their trace.")
        self.held_traces = Gauge("inherit_held_traces", "Traces whose root is awaited.")
        self.remembered_roots = Gauge("inherit_roots", "Roots that are remembered for spans that come after them.")
        self.store_bytes = Gauge("store_bytes", "Bytes of the store on the disk, its log included.")
        self.store_bytes_limit = Gauge(
            "store_bytes_limit", "Above this the oldest traces go, if there is such a limit: --store-max-size."
        )

    def __iter__(self) -> Iterator[Gauge]:
        return iter(vars(self).values())
