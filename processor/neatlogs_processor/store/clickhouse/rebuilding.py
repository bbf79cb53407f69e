"""Comparing the rollups with the table that they are taken from, and filling what is missing.

A view's insert is not atomic with the table's: a crash between the two leaves a rollup short. And rows that were there
before the views have never passed them. Filling again is always right, also while others write, because a rollup takes
the same span twice without counting it twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final, TextIO

from neatlogs_processor.errors import ProcessorError
from neatlogs_processor.store.clickhouse.schema import spans_of

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

# ruff: noqa: S608  # statements of this package; values are bound

_SETTINGS: Final[dict[str, Any]] = {
    # More than this goes to the server's disk, however many spans a day has.
    "max_bytes_before_external_group_by": 2**30,
    "max_bytes_before_external_sort": 2**30,
    # What was inserted once may have been deleted since.
    "insert_deduplicate": 0,
    "max_partitions_per_insert_block": 0,
}
_LOOKS: Final = 3
_FIRST_DAY: Final = date(1970, 1, 1)
_LAST_DAY: Final = date(2149, 6, 6)


@dataclass(frozen=True)
class Day:
    """What the table and the rollups say about the spans that start on one day.

    Attributes:
        day: In UTC.
        spans: Distinct spans in `otel_traces`, completion markers and those without ids excepted.
        counted: Spans that `neatlogs_traces` counts.
        roots: Spans of `otel_traces` that may speak for their traces.
        found: How many of these `neatlogs_roots` has.
    """

    day: date
    spans: int = 0
    counted: int = 0
    roots: int = 0
    found: int = 0

    @property
    def is_short(self) -> bool:
        """Whether a rollup misses spans of the table."""
        return self.counted < self.spans or self.found < self.roots

    @property
    def is_long(self) -> bool:
        """Whether a rollup has spans that the table has not, or not any more."""
        return self.counted > self.spans or self.found > self.roots


@dataclass
class Rebuilt:
    """What `rebuild` did.

    Attributes:
        days: How many days there are.
        filled: Those that were filled.
        still_short: Those that are short all the same.
        long: Those of which a rollup has more than the table.
    """

    days: int = 0
    filled: list[date] = field(default_factory=list)
    still_short: list[date] = field(default_factory=list)
    long: list[date] = field(default_factory=list)


def compare(client: Client, only: date | None = None, *, rollups_first: bool = False) -> list[Day]:
    """Return what each day holds, in their order.

    Args:
        client: Of the database.
        only: This day alone.
        rollups_first: What is written meanwhile makes no day look long. Otherwise it makes none look short; except for
            the instant between the table and its views, so a day that looks short has to be looked at again.

    Raises:
        Exception: Of clickhouse-connect, or of the connection.
    """
    early = _of_rollups(client, only) if rollups_first else None
    spans, roots = _of_table(client, "otel_traces" if only is None else _rows_of(only))
    counted, found = early or _of_rollups(client, only)
    return [
        Day(day, spans.get(day, 0), counted.get(day, 0), roots.get(day, 0), found.get(day, 0))
        for day in sorted({*counted, *found, *spans, *roots})
    ]


def _of_table(client: Client, source: str) -> tuple[dict[date, int], dict[date, int]]:
    """Return the spans and the roots of each day, of all rows or of a subquery."""
    spans = (
        "SELECT day, sum(n) FROM (SELECT s.day AS day, s.trace_id, uniqExact(s.span) AS n"
        f" FROM ({spans_of(source)}) AS s GROUP BY s.day, s.trace_id) GROUP BY day"
    )
    roots = (
        "SELECT s.day AS day, uniqExact(s.trace_id, s.span_id)"
        f" FROM ({spans_of(source)}) AS s WHERE s.rank < 2 GROUP BY day"
    )
    return _by_day(client, spans, {}), _by_day(client, roots, {})


def _of_rollups(client: Client, only: date | None) -> tuple[dict[date, int], dict[date, int]]:
    """Return how many spans and roots of each day the rollups have."""
    where = "" if only is None else " WHERE r.day = {day:Date}"
    counted = (
        "SELECT day, sum(n) FROM (SELECT r.day AS day, r.trace_id, uniqExactMerge(r.spans) AS n"
        f" FROM neatlogs_traces AS r{where} GROUP BY r.day, r.trace_id) GROUP BY day"
    )
    found = f"SELECT r.day AS day, uniqExact(r.trace_id, r.span_id) FROM neatlogs_roots AS r{where} GROUP BY day"
    return _by_day(client, counted, {"day": only}), _by_day(client, found, {"day": only})


def rebuild(client: Client, out: TextIO, *, every_day: bool = False) -> Rebuilt:
    """Fill the rollups for the days of which they are short, and say so day by day. Safe while others write.

    Args:
        client: Of the database.
        out: Where it is said.
        every_day: Fill every day, short or not.

    Raises:
        ProcessorError: A day is short all the same.
        Exception: Of clickhouse-connect, or of the connection.
    """
    days = compare(client)
    done = Rebuilt(len(days))
    for one in days:
        if not (one.is_short or every_day):
            continue
        now = _look(client, one.day)
        if now.is_short or every_day:
            _say(out, now, "filled")
            fill(client, one.day)
            done.filled.append(one.day)
            if _look(client, one.day).is_short:
                done.still_short.append(one.day)
    done.long = [
        one.day
        for one in days
        if one.is_long and any(now.is_long for now in compare(client, one.day, rollups_first=True))
    ]
    out.write(f"{done.days:,} days compared, {len(done.filled):,} of them filled\n")
    if done.long:
        out.write(
            f"of {len(done.long):,} days the rollups have more than otel_traces, where rows were deleted by themselves:"
            f" {_some(done.long)}\n"
        )
    if done.still_short:
        raise ProcessorError(
            f"short all the same: {_some(done.still_short)}; if somebody is writing old spans now, do it again"
        )
    return done


def report(client: Client, out: TextIO) -> bool:
    """Say of which days the rollups are short, and change nothing; return whether there is such a day."""
    days = compare(client)
    short = [now for one in days if one.is_short and (now := _look(client, one.day)).is_short]
    for one in short:
        _say(out, one, "short")
    out.write(f"{len(days):,} days compared, {len(short):,} of them short\n")
    return bool(short)


def _look(client: Client, day: date) -> Day:
    """Compare a day, again where it looks short: it may have been between the table and its views."""
    found = Day(day)
    for _ in range(_LOOKS):
        found = next(iter(compare(client, day)), Day(day))
        if not found.is_short:
            break
    return found


def fill(client: Client, day: date) -> None:
    """Put what the spans of a day say into the rollups, once more or for the first time."""
    source = _rows_of(day)
    # The views of this table do the rest, block by block.
    client.command(f"INSERT INTO neatlogs_spans\n{spans_of(source)}", settings=_SETTINGS)
    client.command(
        "INSERT INTO otel_traces_trace_id_ts SELECT TraceId, min(Timestamp), max(Timestamp)"
        f" FROM {source} WHERE TraceId != '' GROUP BY TraceId",
        settings=_SETTINGS,
    )


def _rows_of(day: date) -> str:
    """Return the rows of `otel_traces` of a day as a subquery; its bounds let the server skip all other partitions."""
    first = datetime(day.year, day.month, day.day, tzinfo=timezone.utc)
    low, high = (f"toDateTime64('{time:%Y-%m-%d} 00:00:00', 9, 'UTC')" for time in (first, first + timedelta(days=1)))
    # Earlier times count as of the first day that a Date has, later ones as of the last.
    bounds = [f"Timestamp >= {low}"] if day > _FIRST_DAY else []
    bounds += [f"Timestamp < {high}"] if day < _LAST_DAY else []
    return f"(SELECT * FROM otel_traces WHERE {' AND '.join(bounds)})"


def _by_day(client: Client, statement: str, bound: dict[str, Any]) -> dict[date, int]:
    settings = {name: value for name, value in _SETTINGS.items() if name.startswith("max_bytes")}
    return {day: int(count) for day, count in client.query(statement, parameters=bound, settings=settings).result_rows}


def _say(out: TextIO, one: Day, what: str) -> None:
    out.write(
        f"{one.day}  {what}: {one.counted:,} of {one.spans:,} spans were counted,"
        f" {one.found:,} of {one.roots:,} roots found\n"
    )


def _some(days: Iterable[date]) -> str:
    found = [str(day) for day in days]
    return ", ".join(found[:5]) + (f" and {len(found) - 5:,} more" if len(found) > 5 else "")
