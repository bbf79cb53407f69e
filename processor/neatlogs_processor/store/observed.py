"""What was observed: values of fields and keys of metadata for autocompletion, traces over time for charts."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from neatlogs_processor.core.text import fold
from neatlogs_processor.query.dialect import MAX_PATH, Condition, conjunction
from neatlogs_processor.query.fields import STATUSES, Field, Kind
from neatlogs_processor.query.filters import Scalar, reads_as_scalar
from neatlogs_processor.query.results import Bucket, ValueCount
from neatlogs_processor.query.text import render_value
from neatlogs_processor.query.view import View
from neatlogs_processor.store.selecting import in_period, traces_of
from neatlogs_processor.store.text import read_set

# ruff: noqa: S608  # names and conditions are constants of this package, values are bound

LOOKED_AT: Final = 20_000
"""How many of the latest traces autocompletion looks at: it must answer while somebody types."""

OFFERED: Final = (Kind.TEXT, Kind.SET, Kind.CHOICE, Kind.JSON)
"""The kinds of fields whose values autocompletion offers."""

MAX_CHARS: Final = 64 * 1024
"""Nobody types a value that is longer."""

_MAX_DEPTH: Final = MAX_PATH


def values(
    connection: sqlite3.Connection, field: Field, prefix: str, view: View, now: int, limit: int
) -> tuple[ValueCount, ...]:
    """See `TraceReader.values`."""
    if field.spec.kind not in OFFERED:
        return ()
    return most_frequent_values(field, _latest(connection, field.spec.column, view, now), prefix, limit)


def metadata_keys(
    connection: sqlite3.Connection, prefix: str, view: View, now: int, limit: int
) -> tuple[ValueCount, ...]:
    """See `TraceReader.metadata_keys`."""
    return most_frequent_keys(_latest(connection, "metadata", view, now), prefix, limit)


def most_frequent_values(
    field: Field, stored: Iterable[tuple[Any, int]], prefix: str, limit: int
) -> tuple[ValueCount, ...]:
    """Return the values that traces have for a field, as they are typed.

    Args:
        field: The field, of a kind of `OFFERED`.
        stored: What its column holds, each with its number of traces.
        prefix: What they have to contain, ignoring case.
        limit: How many at most.
    """
    spec, folded = field.spec, fold(prefix)
    counts: Counter[str | Scalar] = Counter()
    names = {number: name for name, number in STATUSES.items()}
    for value, traces in stored:
        for one in _members(field, value, names):
            if folded in fold(one.text if isinstance(one, Scalar) else one):
                counts[one] += traces
    return _most_frequent({render_value(spec.kind, value): count for value, count in counts.items()}, limit)


def most_frequent_keys(stored: Iterable[tuple[str, int]], prefix: str, limit: int) -> tuple[ValueCount, ...]:
    """Return the keys of metadata, dotted; see `most_frequent_values`."""
    folded = fold(prefix)
    counts: Counter[str] = Counter()
    for value, traces in stored:
        for key in {key for key in _keys(json.loads(value)) if key and folded in fold(key)}:
            counts[key] += traces
    return _most_frequent(counts, limit)


def at(metadata: dict[str, Any], key: str) -> Any:
    """Return the value at a key of metadata: the key as it stands, else the path that its dots describe; or `None`."""
    if key in metadata:
        return metadata[key]
    path = key.split(".")
    value: Any = metadata if len(path) <= MAX_PATH else None
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _latest(connection: sqlite3.Connection, column: str, view: View, now: int) -> Iterator[tuple[Any, int]]:
    """Return the different values of a column, each with its number of traces."""
    condition = conjunction([traces_of(view, now), Condition(f"length(t.{column}) <= ?", (MAX_CHARS,))])
    # Not a generator: one that is left behind would be closed when the connection is gone.
    return connection.execute(
        f"SELECT value, count(*) FROM (SELECT t.{column} AS value FROM traces AS t WHERE {condition.sql}"
        " ORDER BY t.start DESC LIMIT ?) GROUP BY value",
        (*condition.parameters, LOOKED_AT),
    )


def _members(field: Field, value: Any, statuses: dict[int, str]) -> Iterable[str | Scalar]:
    kind = field.spec.kind
    if kind is Kind.SET:
        return read_set(value)
    if kind is Kind.CHOICE:
        return (statuses.get(value, "unset"),)
    if kind is Kind.TEXT:
        return (value,)
    found = at(json.loads(value), field.key)
    if isinstance(found, str):
        return (found,)
    written = json.dumps(found)
    return (Scalar(written),) if found is not None and reads_as_scalar(written) else ()


def _keys(value: Any, before: str = "", depth: int = _MAX_DEPTH) -> Iterator[str]:
    """Yield the keys of an object, dotted where they lead on to further ones."""
    if not isinstance(value, dict) or not depth:
        return
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _keys(inner, f"{before}{key}.", depth - 1)
        else:
            yield before + key


def _most_frequent(counts: dict[str, int], limit: int) -> tuple[ValueCount, ...]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(ValueCount(value, traces) for value, traces in ordered[:limit])


def histogram(
    connection: sqlite3.Connection, view: View, now: int, buckets: int, *, end_user: str | None = None
) -> tuple[Bucket, ...]:
    """See `TraceReader.histogram`; with an end user, of their traces alone and whatever the filters."""
    if end_user is None:
        condition = traces_of(view, now)
    else:
        condition = conjunction([Condition("t.end_user = ?", (end_user,)), in_period(view, now)])
    low, width = _pieces(connection, condition, view, now, buckets)
    counted = {
        piece: (traces, errors)
        for piece, traces, errors in connection.execute(
            "SELECT min((t.start - ?) / ?, ?) AS piece, count(*), sum(t.errors > 0) FROM traces AS t"
            f" WHERE {condition.sql} GROUP BY piece",
            (low, width, buckets - 1, *condition.parameters),
        )
    }
    return tuple(Bucket(low + width * piece, *counted.get(piece, (0, 0))) for piece in range(buckets))


def sparklines(
    connection: sqlite3.Connection, end_users: Sequence[str], view: View, now: int, buckets: int
) -> dict[str, tuple[int, ...]]:
    """See `TraceReader.sparklines`."""
    if not end_users:
        return {}
    named = Condition(f"t.end_user IN ({', '.join('?' * len(end_users))})", tuple(end_users))
    condition = conjunction([named, in_period(view, now)])
    low, width = _pieces(connection, condition, view, now, buckets)
    lines = {end_user: [0] * buckets for end_user in end_users}
    for end_user, piece, traces in connection.execute(
        "SELECT t.end_user, min((t.start - ?) / ?, ?) AS piece, count(*) FROM traces AS t"
        f" WHERE {condition.sql} GROUP BY t.end_user, piece",
        (low, width, buckets - 1, *condition.parameters),
    ):
        lines[end_user][piece] = traces
    return {end_user: tuple(line) for end_user, line in lines.items()}


def _pieces(
    connection: sqlite3.Connection, condition: Condition, view: View, now: int, buckets: int
) -> tuple[int, int]:
    """Return where the first piece begins and how wide each is. A period without an end ends now."""
    first = None
    if begins_with_the_first(view):
        (first,) = connection.execute(
            f"SELECT min(t.start) FROM traces AS t WHERE {condition.sql}", condition.parameters
        ).fetchone()
    return equal_pieces(view, now, buckets, first)


def begins_with_the_first(view: View) -> bool:
    """Tell whether a chart of the view's period begins with its first trace, because the period has no beginning."""
    return view.period.last is None and view.period.start is None


def equal_pieces(view: View, now: int, buckets: int, first: int | None) -> tuple[int, int]:
    """Return where the first of so many equal pieces of the view's period begins, and how wide each is.

    A period without an end ends now.

    Args:
        view: The view.
        now: The time.
        buckets: How many pieces.
        first: Where the period begins instead, if anywhere.
    """
    low, high = view.period.bounds(now)
    low = low if first is None else first
    until = max(low, min(high, now))
    return low, max(1, -(-(until - low) // buckets))
