"""What the operator gets to know: counters and log lines.

Counters are labelled only with words of this program, never with anything from a payload. Log lines may name spans
and services, escaped and cut; they never hold identity, headers or any other value.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, TextIO

from neatlogs_processor.core.explain import explanation
from neatlogs_processor.core.policy import Enforced, Override, Place
from neatlogs_processor.core.request import Signal
from neatlogs_processor.core.text import shown
from neatlogs_processor.errors import NoDestinationError, ProcessorError, UpstreamUnavailableError
from neatlogs_processor.instruments import Gauges, Histogram

logger = logging.getLogger("neatlogs_processor")

_MINUTE = 60.0
_HOUR = 3600.0


class Counter:
    """A number that only grows, one for each combination of label values. Not thread-safe: for the event loop."""

    def __init__(self, name: str, description: str, *labels: str) -> None:
        self.name = name
        self.description = description
        self.labels = labels
        self._values: dict[tuple[str, ...], int] = {} if labels else {(): 0}

    def add(self, amount: int, *labels: str) -> None:
        """Add to the number with these label values, which are in the order of `labels`."""
        if amount:
            self._values[labels] = self._values.get(labels, 0) + amount

    def start(self, *labels: str) -> None:
        """Show zero under these label values until there is more: a rate needs a point before the first event."""
        self._values.setdefault(labels, 0)

    def get(self, *labels: str) -> int:
        """Return the number with these label values."""
        return self._values.get(labels, 0)

    def total(self) -> int:
        """Return the sum over all label values."""
        return sum(self._values.values())

    def __iter__(self) -> Iterator[tuple[tuple[str, ...], int]]:
        return iter(sorted(self._values.items()))


QUEUE_OUTCOMES: Final = ("delivered", "partial", "rejected", "damaged", "expired")
"""What becomes of a request in the durable queue."""


class Counters:
    """The operator's counters."""

    def __init__(self) -> None:
        self.requests = Counter("requests", "Requests answered.", "signal", "outcome")
        self.spans_received = Counter("spans_received", "Spans of requests that could be read.")
        self.spans_forwarded = Counter("spans_forwarded", "Spans that the destination accepted.")
        self.spans_refused = Counter("spans_refused", "Spans of requests that were not delivered.", "reason")
        self.overrides_ignored = Counter("overrides_ignored", "Identity removed from where it has no say.", "place")
        self.defaults_moved = Counter("defaults_moved", "Identity moved from resources to root spans.")
        self.invalid_values = Counter(
            "invalid_values", "Identity removed because of its value, or of its key where only known ones may leave."
        )
        self.roots = Counter("roots", "Root spans, with and without an end user.", "end_user")
        self.roots_accepted = Counter(
            "roots_accepted", "Root spans that took an end user, metadata or a session from other keys (--accept)."
        )
        self.retries = Counter("retries", "Tries to send a request after one that failed.")
        self.http_refused = Counter(
            "http_refused", "HTTP connections and requests refused before their signal was known.", "reason"
        )
        self.queue_requests = Counter(
            "queue_requests", "Requests that left the queue, by what became of them.", "signal", "outcome"
        )
        self.queue_spans = Counter("queue_spans", "Spans that left the queue, by what became of them.", "outcome")
        self.partial_rejections = Counter(
            "partial_rejections", "Items that the upstream refused of queued requests that it accepted.", "signal"
        )
        self.dead_letters_dropped = Counter(
            "dead_letters_dropped", "Dead letters that made room for newer ones.", "signal"
        )
        self.queue_files_set_aside = Counter("queue_files_set_aside", "Damaged queue files that were set aside.")
        self.inherit_spans = Counter(
            "inherit_spans",
            "Spans that went on with --inherit: roots, children that were stamped, and why the others were not.",
            "outcome",
        )
        self.inherit_files_set_aside = Counter(
            "inherit_files_set_aside", "Damaged files of spans that waited for their root, set aside."
        )
        self.store_spans = Counter(
            "store_spans",
            "Spans that reached the store: written, there already, or without the ids to keep them by.",
            "outcome",
        )
        self.store_missed = Counter(
            "store_missed", "Spans that went on although the store did not take them.", "reason"
        )
        self.store_pruned = Counter("store_pruned", "Spans that left the store, by the limit that they met.", "limit")
        self.failures = Counter("failures", "Requests that failed because of a bug of the processor.")
        for place in Place:
            self.overrides_ignored.start(place.value)
        for answer in ("yes", "no"):
            self.roots.start(answer)
        for signal in Signal:
            self.requests.start(signal.value, "ok")
            self.partial_rejections.start(signal.value)
            self.dead_letters_dropped.start(signal.value)
            for outcome in QUEUE_OUTCOMES:
                self.queue_requests.start(signal.value, outcome)
        for outcome in QUEUE_OUTCOMES:
            self.queue_spans.start(outcome)

    def __iter__(self) -> Iterator[Counter]:
        return (value for value in vars(self).values() if isinstance(value, Counter))


class Seldom:
    """Decides which of many similar log lines are written.

    A line with a new key is written; one with a known key only when `again` has passed since. Over all keys at most
    `burst` lines per minute are written, because keys may come from span names without end.

    Args:
        clock: Returns seconds.
        again: Seconds.
        burst: Lines per minute.
        keys: How many keys are remembered; the one that was silent for longest is forgotten first.
    """

    def __init__(self, clock: Callable[[], float], *, again: float, burst: int = 20, keys: int = 1024) -> None:
        self._clock = clock
        self._again = again
        self._burst = burst
        self._keys = keys
        self._last: OrderedDict[object, float] = OrderedDict()
        self._window = clock()
        self._written = 0
        self._skipped = 0

    def allows(self, key: object) -> bool:
        """Say whether a line with this key is to be written now."""
        now = self._clock()
        if now - self._window >= _MINUTE:
            self._window, self._written = now, 0
        last = self._last.get(key)
        if (last is not None and now - last < self._again) or self._written >= self._burst:
            self._skipped += 1
            return False
        self._last[key] = now
        self._last.move_to_end(key)
        if len(self._last) > self._keys:
            self._last.popitem(last=False)
        self._written += 1
        return True

    def skipped(self) -> str:
        """Return a remark about the lines not written since the last remark; empty where there were none."""
        count, self._skipped = self._skipped, 0
        return f" ({count} similar lines not shown)" if count else ""


class Telemetry:
    """Counts and logs what happens to requests.

    Args:
        clock: Returns seconds; decides about the rate of log lines.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.counters = Counters()
        self.gauges = Gauges()
        self.request_duration = Histogram(
            "request_duration_seconds",
            "From a request that has arrived to its answer, whatever it is.",
            "signal",
            tuple(signal.value for signal in Signal),
        )
        self.histograms = (self.request_duration,)
        self._overrides = Seldom(clock, again=_HOUR)
        self._refusals = Seldom(clock, again=_MINUTE)
        self._bugs = Seldom(clock, again=_HOUR)
        self._without_destination: set[Signal] = set()

    def enforced(self, enforced: Enforced) -> None:
        """Count what the rule found in a request, and warn about overrides."""
        counts, counters = enforced.counts, self.counters
        counters.spans_received.add(counts.spans)
        counters.roots.add(counts.roots_with_identity, "yes")
        counters.roots.add(counts.roots - counts.roots_with_identity, "no")
        counters.roots_accepted.add(counts.accepted)
        counters.defaults_moved.add(counts.defaults_moved)
        counters.invalid_values.add(counts.invalid)
        for place, number in counts.overrides.items():
            counters.overrides_ignored.add(number, place.value)
        for override in enforced.overrides:
            self._warn(override)

    def forwarded(self, signal: Signal, *, spans: int) -> None:
        """Count a request that was delivered."""
        self.counters.requests.add(1, signal.value, "ok")
        self.counters.spans_forwarded.add(spans)

    def refused(self, signal: Signal, error: ProcessorError, *, spans: int) -> None:
        """Count a request that was not delivered, and say why."""
        self.counters.requests.add(1, signal.value, error.reason)
        self.counters.spans_refused.add(spans, error.reason)
        if isinstance(error, NoDestinationError):
            # The configuration does not change while we run, so once says it all.
            if signal not in self._without_destination:
                self._without_destination.add(signal)
                logger.warning("%s are refused: %s", signal.value, error)
        elif self._refusals.allows((signal, error.reason)):
            fate = "the client was told to try again" if error.retryable else "the client was told not to send it again"
            if isinstance(error, UpstreamUnavailableError):
                fate += "; is the upstream up (--upstream-endpoint)?"
            logger.warning(
                "%s not delivered (%s): %s; %s%s",
                signal.value,
                error.reason,
                shown(error.loggable, limit=400),
                fate,
                self._refusals.skipped(),
            )

    def abandoned(self, signal: Signal, *, spans: int) -> None:
        """Count a request whose client went away before the answer."""
        self.counters.requests.add(1, signal.value, "client_gone")
        self.counters.spans_refused.add(spans, "client_gone")

    def failed(self, error: Exception) -> None:
        """Count a bug of ours and log where it is: places in the code, no message, because that may quote a payload."""
        self.counters.failures.add(1)
        frames = traceback.extract_tb(error.__traceback__)
        place = (frames[-1].filename, frames[-1].lineno) if frames else None
        if self._bugs.allows((type(error), place)):
            logger.error(
                "a request failed inside the processor with %s%s\n%s",
                type(error).__name__,
                self._bugs.skipped(),
                "".join(traceback.format_list(frames)).rstrip(),
            )

    def summary(self) -> str:
        """Return the counters in one line, for the end."""
        counters = self.counters
        return (
            f"requests: {counters.requests.total()}; spans: {counters.spans_received.total()} received,"
            f" {counters.spans_forwarded.total()} acknowledged, {counters.spans_refused.total()} refused;"
            f" roots: {counters.roots.get('yes')} with an end user, {counters.roots.get('no')} without;"
            f" overrides ignored: {counters.overrides_ignored.total()}"
        )

    def _warn(self, override: Override) -> None:
        if not self._overrides.allows((override.service, override.span_name, override.place)):
            return
        logger.warning("%s%s", explanation(override), self._overrides.skipped())


class _TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logging(level: str, style: str, stream: TextIO | None = None) -> None:
    """Send this program's log lines to a stream.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        style: `text` or `json` (one object a line).
        stream: Standard error, unless told otherwise.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonFormatter() if style == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries speak only when something is wrong: their lines are not checked for payload.
    root.setLevel(logging.WARNING)
    logger.setLevel(level.upper())
