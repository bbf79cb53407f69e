"""What the operator gets to know about the queue: counters and log lines."""

from __future__ import annotations

import time
from collections.abc import Callable

from neatlogs_processor.core.request import Signal
from neatlogs_processor.core.text import shown
from neatlogs_processor.errors import ProcessorError
from neatlogs_processor.queue.recovery import Recovery
from neatlogs_processor.queue.rows import Entry, Loss, Totals
from neatlogs_processor.telemetry import Seldom, Telemetry, logger

_MINUTE = 60.0


class QueueEvents:
    """Counts and logs what happens to queued requests. For the event loop.

    Args:
        telemetry: Has the counters.
        clock: Returns seconds; decides about the rate of log lines.
    """

    def __init__(self, telemetry: Telemetry, clock: Callable[[], float] = time.monotonic) -> None:
        self._counters = telemetry.counters
        self._telemetry = telemetry
        self._seldom = Seldom(clock, again=_MINUTE)

    def resumed(self, totals: Totals) -> None:
        """Say what an earlier run left."""
        if totals.requests:
            logger.info("the queue holds %d requests (%d bytes) of an earlier run", totals.requests, totals.size)
        if totals.dead_requests:
            logger.warning(
                "the queue holds %d dead letters (%d bytes); neatlogs-processor queue ls shows why",
                totals.dead_requests,
                totals.dead_size,
            )

    def delivered(self, entry: Entry, rejected: int) -> None:
        """Count a request that the upstream accepted, but for `rejected` of its items."""
        self._left(entry.signal, "partial" if rejected else "delivered", 1, entry.spans)
        self._counters.partial_rejections.add(rejected, entry.signal.value)
        if rejected and self._seldom.allows(("partial", entry.signal)):
            logger.warning(
                "the upstream refused %d items of a queued %s request and took the others%s",
                rejected,
                entry.signal.value,
                self._seldom.skipped(),
            )

    def failed(self, entry: Entry, error: Exception, delay: float) -> None:
        """Count a try that is made again."""
        self._counters.retries.add(1)
        if self._seldom.allows(("failed", entry.signal, type(error))):
            logger.warning(
                "queued %s not delivered yet: %s; tried again in %.1f s%s",
                entry.signal.value,
                shown(error.loggable if isinstance(error, ProcessorError) else entry.error, limit=400),
                delay,
                self._seldom.skipped(),
            )

    def bug(self, error: Exception) -> None:
        """Count a bug of ours."""
        self._telemetry.failed(error)

    def died(self, entry: Entry, outcome: str, error: Exception) -> None:
        """Count a request that became a dead letter: `rejected` by the upstream, or `damaged` on the disk."""
        self._left(entry.signal, outcome, 1, entry.spans)
        if self._seldom.allows((outcome, entry.signal)):
            logger.error(
                "queued request %d (%s) is a dead letter now (%s): %s; neatlogs-processor queue ls shows them all%s",
                entry.id,
                entry.signal.value,
                outcome,
                shown(_loggable(error), limit=400),
                self._seldom.skipped(),
            )

    def expired(self, loss: Loss) -> None:
        """Count requests that became too old."""
        for signal, number in loss.requests.items():
            self._left(signal, "expired", number, loss.spans[signal])
        if loss.ids and self._seldom.allows("expired"):
            logger.error(
                "%d queued requests dropped: older than --queue-max-age%s", len(loss.ids), self._seldom.skipped()
            )

    def dead_letters_dropped(self, loss: Loss) -> None:
        """Count dead letters that made room for newer ones."""
        for signal, number in loss.requests.items():
            self._counters.dead_letters_dropped.add(number, signal.value)
        if loss.ids and self._seldom.allows("dead letters"):
            logger.error(
                "%d dead letters dropped: more than --queue-max-dead-bytes%s", len(loss.ids), self._seldom.skipped()
            )

    def recovered(self, recovery: Recovery) -> None:
        """Raise the alarm about a damaged file."""
        self._counters.queue_files_set_aside.add(1)
        logger.error(
            "the queue's file was damaged (%s): %d requests go on, %d that were found are lost; the file is kept in %s",
            shown(recovery.cause, limit=400),
            recovery.saved,
            recovery.damaged,
            recovery.folder,
        )

    def disk_full(self) -> None:
        """Say that requests are refused because of the disk."""
        if self._seldom.allows("disk full"):
            logger.error("the queue's disk is full: requests are refused, deliveries go on%s", self._seldom.skipped())

    def broken(self, error: Exception) -> None:
        """Say that the disk does not do what it is asked."""
        if self._seldom.allows(("broken", type(error))):
            logger.error("the queue cannot be used: %s%s", shown(str(error), limit=400), self._seldom.skipped())

    def remaining(self, totals: Totals) -> None:
        """Say what the next run will find."""
        if totals.requests:
            logger.info("for the next run the queue holds: requests %d, bytes %d", totals.requests, totals.size)

    def _left(self, signal: Signal, outcome: str, requests: int, spans: int) -> None:
        self._counters.queue_requests.add(requests, signal.value, outcome)
        self._counters.queue_spans.add(spans, outcome)


def _loggable(error: Exception) -> str:
    """Say what happened without the upstream's own words, which may quote keys and payloads: `queue ls` shows those."""
    return error.loggable if isinstance(error, ProcessorError) else str(error)
