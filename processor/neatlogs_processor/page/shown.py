"""Numbers, durations and times as people read them."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any, Final

from neatlogs_processor.query.view import Period

_SECOND: Final = 1_000_000_000
_MINUTE: Final = 60 * _SECOND
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_LAST: Final = datetime(9999, 12, 31, tzinfo=timezone.utc)


def duration(nanoseconds: int) -> str:
    """Return a duration with about three digits: `320 ms`, `1.24 s`, `2 min 3 s`, `1 h 5 min`."""
    if nanoseconds < 1000:
        return f"{nanoseconds} ns"
    if nanoseconds < 1_000_000:
        return f"{_three_digits(nanoseconds / 1000)} µs"
    if nanoseconds < _SECOND:
        return f"{_three_digits(nanoseconds / 1_000_000)} ms"
    if nanoseconds < _MINUTE:
        return f"{_three_digits(nanoseconds / _SECOND)} s"
    for unit, name, part, part_name in ((_HOUR, "min", _SECOND, "s"), (_DAY, "h", _MINUTE, "min")):
        if nanoseconds < unit:
            whole = {"min": _MINUTE, "h": _HOUR}[name]
            return _pair(nanoseconds // whole, name, nanoseconds % whole // part, part_name)
    return _pair(nanoseconds // _DAY, "d", nanoseconds % _DAY // _HOUR, "h")


def _pair(first: int, first_name: str, second: int, second_name: str) -> str:
    return f"{first:,} {first_name} {second} {second_name}" if second else f"{first:,} {first_name}"


def _three_digits(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}".removesuffix(".0") if value >= 10 else f"{value:.2f}".rstrip("0").rstrip(".")


def number(value: int) -> str:
    """Return a number with its thousands apart: `12,345`."""
    return f"{value:,}"


def short_number(value: int) -> str:
    """Return a number in few characters: `950`, `12.3k`, `4.1M`."""
    for size, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (1000, "k")):
        if value >= size:
            return f"{_three_digits(value / size)}{unit}"
    return str(value)


def share(value: float | None) -> str:
    """Return a share of 0 to 1 in percent; never 100 % or 0 % where that is not the whole truth."""
    if value is None:
        return "\N{EN DASH}"
    percent = value * 100
    if 99.5 <= percent < 100:
        return "> 99 %"
    if 0 < percent < 0.5:
        return "< 1 %"
    return f"{percent:.0f} %"


def moment(nanoseconds: int) -> datetime:
    """Return the time in UTC, to the microsecond."""
    seconds, rest = divmod(nanoseconds, _SECOND)
    try:
        return datetime.fromtimestamp(seconds, tz=timezone.utc).replace(microsecond=rest // 1000)
    except (ValueError, OverflowError):
        return _LAST


def iso(nanoseconds: int) -> str:
    """Return the time as a machine reads it: `2026-11-20T10:00:00.250Z`."""
    return moment(nanoseconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def full_time(nanoseconds: int) -> str:
    """Return the time to the millisecond: `20 Nov 2026, 10:00:00.250 UTC`."""
    time = moment(nanoseconds)
    return f"{time.day} {time:%b %Y, %H:%M:%S}.{time.microsecond // 1000:03d} UTC"


def short_time(nanoseconds: int, now: int) -> str:
    """Return the time as a list shows it: the time of day today, with the date on other days."""
    time, today = moment(nanoseconds), moment(now)
    if time.date() == today.date():
        return f"{time:%H:%M:%S}"
    return f"{time.day} {time:%b %H:%M}" if time.year == today.year else f"{time.day} {time:%b %Y}"


def period(period: Period, now: int) -> str:
    """Return a period in few characters: `since 20 Nov 10:00`, or its two ends with a dash between."""
    if period.last is not None:
        return period.sentence.removeprefix("of the ")
    if period.start is None or period.end is None:
        ends = [("since", period.start), ("before", period.end)]
        return next((f"{word} {short_time(at, now)}" for word, at in ends if at is not None), period.sentence)
    return f"{short_time(period.start, now)} \N{EN DASH} {short_time(period.end, now)}"


def ago(nanoseconds: int, now: int) -> str:
    """Return how long ago it was: `just now`, `3 min ago`, `2 d ago`."""
    distance = now - nanoseconds
    if distance < -_MINUTE:
        return "in the future"
    if distance < 5 * _SECOND:
        return "just now"
    for unit, limit, name in ((_SECOND, _MINUTE, "s"), (_MINUTE, _HOUR, "min"), (_HOUR, 2 * _DAY, "h")):
        if distance < limit:
            return f"{distance // unit} {name} ago"
    return f"{distance // _DAY} d ago"


def input_time(nanoseconds: int | None) -> str:
    """Return the time as an input for dates and times takes it; empty for none."""
    return "" if nanoseconds is None else f"{moment(nanoseconds):%Y-%m-%dT%H:%M:%S}"


def value(value: Any) -> str:
    """Return an attribute's value as text: text as it is, everything else as JSON, nested values over several lines."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, indent=2 if isinstance(value, (dict, list)) and value else None)


def pretty(text: str) -> str:
    """Return JSON text with a line for each member, and any other text as it is."""
    if text[:1] not in "{[" or len(text) > 200_000:
        return text
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return text


def noun(count: int, one: str) -> str:
    """Return the noun that goes with a count: `trace`, `traces`."""
    return one if count == 1 else f"{one}s"


def cut(text: str, chars: int = 48) -> str:
    """Return a long text with its middle left out: ids differ at their ends as often as at their beginnings."""
    if len(text) <= chars:
        return text
    end = chars // 3
    return f"{text[: chars - end - 1]}\N{HORIZONTAL ELLIPSIS}{text[-end:]}"


def beginning(text: str, chars: int = 100_000) -> str:
    """Return the beginning of a text that is longer than anybody reads."""
    return text if len(text) <= chars else f"{text[: chars - 1]}\N{HORIZONTAL ELLIPSIS}"


def plural(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun: `1 trace`, `2 traces`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
