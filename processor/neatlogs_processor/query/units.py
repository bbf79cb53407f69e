"""Durations and times as one types them, and back: `1500ms`, `2026-11-20T10:00:00Z`. Nanoseconds inside."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Final

UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
"""Units of durations, in nanoseconds."""

_WRITTEN_UNITS: Final = ("h", "m", "s", "ms", "us", "ns")
_MAX: Final = 2**63 - 1
_DURATION: Final = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?) ?(ns|us|µs|ms|s|m|h|d)", re.ASCII)
_TIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?(?:([Zz])|([+-])([0-9]{2}):?([0-9]{2}))?)?",
    re.ASCII,
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


def read_duration(text: str) -> int:
    """Return the nanoseconds of `250ms`, `1.5s`, `2m`.

    Raises:
        ValueError: It is none, not a whole number of nanoseconds, or over 2^63 - 1 of them.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("a duration is a number with one of the units ns, us, ms, s, m, h, d: 250ms, 1.5s")
    exact = Decimal(match[1]) * UNITS[match[2]]
    if exact != exact.to_integral_value() or exact > _MAX:
        raise ValueError("a duration is a whole number of nanoseconds, and less than 292 years")
    return int(exact)


def write_duration(nanoseconds: int) -> str:
    """Return the duration in the largest unit that needs no fraction: `1500ms`, `2s`, `0s`."""
    if not nanoseconds:
        return "0s"
    unit = next(unit for unit in _WRITTEN_UNITS if nanoseconds % UNITS[unit] == 0)
    return f"{nanoseconds // UNITS[unit]}{unit}"


def read_time(text: str) -> int:
    """Return the nanoseconds since the epoch of `2026-11-20`, `2026-11-20T10:00` or `2026-11-20 10:00:00.5+01:00`.

    Without an offset it is UTC.

    Raises:
        ValueError: It is no such time, or not between 1970 and 2262.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("a time is written 2026-11-20 or 2026-11-20T10:00:00Z, in UTC where it says no offset")
    year, month, day, hour, minute, second = (int(part or 0) for part in match.group(1, 2, 3, 4, 5, 6))
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)
        offset = timedelta(hours=int(match[10] or 0), minutes=int(match[11] or 0))
    except (ValueError, OverflowError):
        raise ValueError("there is no such time") from None
    distance = moment - _EPOCH - (-offset if match[9] == "-" else offset)
    seconds = distance.days * 86_400 + distance.seconds
    nanoseconds = seconds * 1_000_000_000 + int((match[7] or "0").ljust(9, "0"))
    if not 0 <= nanoseconds <= _MAX:
        raise ValueError("a time is between 1970 and 2262")
    return nanoseconds


def write_time(nanoseconds: int) -> str:
    """Return the time in UTC, as short as it is exact: `2026-11-20`, `2026-11-20T10:00:00.5Z`."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    moment = _EPOCH + timedelta(seconds=seconds)
    if not fraction and not seconds % 86_400:
        return f"{moment:%Y-%m-%d}"
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{digits}Z"


def timestamp(nanoseconds: int) -> str:
    """Return the time as RFC 3339 writes it, in UTC and with all nine digits: `2026-11-20T10:00:00.500000000Z`."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
