"""When the spans of a plain trace began and ended, where they say only part of it or nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Final

LATEST: Final = 2**63 - 1
"""Nanoseconds since 1970 that fit everywhere: in the year 2262."""

_MILLISECOND: Final = 1_000_000
_SECOND: Final = 1_000_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_ISO: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,18}))?)?"
    r"(?:([Zz])|([+-])([01]\d|2[0-3]):?([0-5]\d))?",
    re.ASCII,
)


@dataclass
class Times:
    """What a span says of its times, and what is made of it. In nanoseconds, the first two since 1970.

    Attributes:
        start: When it began; `None` where it does not say.
        end: When it ended.
        duration: How long it took.
    """

    start: int | None = None
    end: int | None = None
    duration: int | None = None

    def settle(self, children: Sequence[Times]) -> None:
        """Let the three agree as far as they are known; what is not known, the settled children tell."""
        if self.start is not None and self.end is not None:
            self.duration = max(0, self.end - self.start)
            return
        if self.duration is None:
            placed = [(child.start, child.duration or 0) for child in children if child.start is not None]
            if placed and self.end is None:
                self.start = min(start for start, _ in placed) if self.start is None else self.start
            # One after the other.
            self.duration = sum(child.duration or 0 for child in children if child.start is None)
            if self.start is not None:
                begun = self.start
                self.duration = max([self.duration, *(start + took - begun for start, took in placed)])
        if self.start is None and self.end is not None:
            self.start = max(0, self.end - self.duration)

    def place(self, at: int) -> tuple[int, int]:
        """Return start and end; a span that does not say when it began begins `at`. After `settle`."""
        start = at if self.start is None else self.start
        end = start + (self.duration or 0) if self.end is None else self.end
        return start, min(end, LATEST)


def time_of_text(text: str) -> int | None:
    """Return the nanoseconds since 1970 of an ISO 8601 time, UTC where it names no offset; `None` if it is none."""
    found = _ISO.fullmatch(text.strip())
    if found is None:
        return None
    year, month, day, hour, minute = (int(part) for part in found.group(1, 2, 3, 4, 5))
    fraction = int((found[7] or "").ljust(9, "0")[:9])
    try:
        moment = datetime(year, month, day, hour, minute, int(found[6] or 0), tzinfo=timezone.utc)
    except ValueError:
        return None
    since = moment - _EPOCH
    if found[9]:
        offset = timedelta(hours=int(found[10]), minutes=int(found[11]))
        since += offset if found[9] == "-" else -offset
    nanoseconds = (since.days * 86_400 + since.seconds) * _SECOND + fraction
    return nanoseconds if 0 <= nanoseconds <= LATEST else None


def nanoseconds_of(milliseconds: int | float) -> int | None:
    """Return milliseconds in nanoseconds; `None` for what is below zero or too large."""
    if not 0 <= milliseconds <= LATEST // _MILLISECOND:
        return None
    # As a decimal: its digits are what was meant.
    return int(Decimal(repr(milliseconds)) * _MILLISECOND)
