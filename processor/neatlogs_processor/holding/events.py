"""What the operator gets to know about spans that wait for their root: counters and log lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from neatlogs_processor.core.text import shown
from neatlogs_processor.errors import ProcessorError
from neatlogs_processor.holding.file import Salvage
from neatlogs_processor.telemetry import Seldom, Telemetry, logger

_MINUTE = 60.0


class HoldingEvents:
    """Counts and logs what happens to spans that wait. For the event loop.

    Args:
        telemetry: Has the counters.
        clock: Returns seconds; decides about the rate of log lines.
    """

    def __init__(self, telemetry: Telemetry, clock: Callable[[], float] = time.monotonic) -> None:
        self._telemetry = telemetry
        self._counters = telemetry.counters
        self._seldom = Seldom(clock, again=_MINUTE)

    def went_on(self, outcomes: Mapping[str, int]) -> None:
        """Count spans that went on, by what became of them."""
        for outcome, spans in outcomes.items():
            self._counters.inherit_spans.add(spans, outcome)

    def resumed(self, spans: int, traces: int, *, inherits: bool) -> None:
        """Say what an earlier run left."""
        if not spans:
            return
        fate = "wait for the roots of" if inherits else "go on as they are, because there is no --inherit now:"
        logger.info("%d spans of an earlier run %s %d traces", spans, fate, traces)

    def timed_out(self, spans: int) -> None:
        """Say that roots did not come in time."""
        if spans and self._seldom.allows("timed out"):
            logger.warning(
                "%d spans go on without an end user: their roots did not arrive within --inherit-wait%s",
                spans,
                self._seldom.skipped(),
            )

    def evicted(self, spans: int) -> None:
        """Say that more spans wait than may."""
        if spans and self._seldom.allows("evicted"):
            logger.warning(
                "%d spans go on without an end user: more wait for their roots than --inherit-max-spans and"
                " --inherit-max-bytes allow%s",
                spans,
                self._seldom.skipped(),
            )

    def put_off(self, error: ProcessorError, delay: float) -> None:
        """Say that the queue does not take what may go on."""
        if self._seldom.allows("put off"):
            logger.warning(
                "spans that have waited for their root cannot go on yet: %s; tried again in %.1f s%s",
                shown(error.loggable, limit=400),
                delay,
                self._seldom.skipped(),
            )

    def bug(self, error: Exception) -> None:
        """Count a bug of ours."""
        self._telemetry.failed(error)

    def damaged(self, spans: int) -> None:
        """Raise the alarm about spans that cannot be read any more."""
        self._counters.inherit_spans.add(spans, "damaged")
        if self._seldom.allows("damaged"):
            logger.error(
                "%d spans that waited for their root are lost: they are not what was written%s",
                spans,
                self._seldom.skipped(),
            )

    def salvaged(self, salvage: Salvage) -> None:
        """Raise the alarm about a damaged file."""
        self._counters.inherit_files_set_aside.add(1)
        logger.error(
            "the file of spans that wait for their root was damaged (%s): %d requests' spans go on; the file is kept"
            " in %s",
            shown(salvage.cause, limit=400),
            salvage.saved,
            salvage.folder,
        )

    def disk_full(self) -> None:
        """Say that requests are refused because of the disk."""
        if self._seldom.allows("disk full"):
            logger.error("the disk of --queue-dir is full: spans cannot wait there%s", self._seldom.skipped())

    def broken(self, error: Exception) -> None:
        """Say that the disk does not do what it is asked."""
        if self._seldom.allows(("broken", type(error))):
            logger.error(
                "the file of spans that wait for their root cannot be used: %s%s",
                shown(str(error), limit=400),
                self._seldom.skipped(),
            )

    def remaining(self, spans: int) -> None:
        """Say what the next run will find."""
        if spans:
            logger.info("%d spans stay on the disk, where the next run finds them", spans)
