"""What was observed, over ClickHouse: values of fields and keys of metadata for autocompletion, traces for charts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from neatlogs_processor.query.clickhouse_dialect import ClickHouseDialect
from neatlogs_processor.query.dialect import Condition, conjunction
from neatlogs_processor.query.fields import Field, Kind
from neatlogs_processor.query.results import Bucket, ValueCount
from neatlogs_processor.query.view import View
from neatlogs_processor.store.clickhouse.asking import Question
from neatlogs_processor.store.clickhouse.lists import any_name
from neatlogs_processor.store.observed import (
    LOOKED_AT,
    MAX_CHARS,
    OFFERED,
    begins_with_the_first,
    equal_pieces,
    most_frequent_keys,
    most_frequent_values,
)
from neatlogs_processor.store.selecting import in_period, traces_of
from neatlogs_processor.store.text import filterable_metadata

# ruff: noqa: S608  # names and conditions are constants of this package, values are bound


def values(question: Question, field: Field, prefix: str, view: View, now: int, limit: int) -> tuple[ValueCount, ...]:
    """See `TraceReader.values`."""
    if field.spec.kind not in OFFERED:
        return ()
    return most_frequent_values(field, _latest(question, field.spec.column, field.spec.kind, view, now), prefix, limit)


def metadata_keys(question: Question, prefix: str, view: View, now: int, limit: int) -> tuple[ValueCount, ...]:
    """See `TraceReader.metadata_keys`."""
    return most_frequent_keys(_latest(question, "metadata", Kind.JSON, view, now), prefix, limit)


def _latest(question: Question, column: str, kind: Kind, view: View, now: int) -> Iterator[tuple[Any, int]]:
    """Yield the different values of a column, each with its number of traces."""
    dialect = question.dialect(view, now)
    conditions = [traces_of(view, now, dialect)]
    if kind is not Kind.CHOICE:
        conditions.append(Condition(f"lengthUTF8(t.{column}) <= ?", (MAX_CHARS,)))
    condition = conjunction(conditions)
    for value, traces in question.rows(
        f"SELECT value, count() FROM (SELECT t.{column} AS value FROM {dialect.traces.sql} WHERE {condition.sql}"
        " ORDER BY t.start DESC LIMIT ?) GROUP BY value",
        (*dialect.traces.parameters, *condition.parameters, LOOKED_AT),
    ):
        clean = filterable_metadata(value) if kind is Kind.JSON else value
        if clean is not None:
            yield clean, traces


def histogram(question: Question, view: View, now: int, buckets: int) -> tuple[Bucket, ...]:
    """See `TraceReader.histogram`."""
    dialect = question.dialect(view, now)
    return histogram_of(question, dialect, traces_of(view, now, dialect), view, now, buckets)


def histogram_of(
    question: Question, dialect: ClickHouseDialect, condition: Condition, view: View, now: int, buckets: int
) -> tuple[Bucket, ...]:
    """Return the traces of which the condition is true over the view's period, in equal pieces."""
    low, width = _pieces(question, dialect, condition, view, now, buckets)
    counted = {
        piece: (traces, errors)
        for piece, traces, errors in question.rows(
            "SELECT least(intDiv(t.start - ?, ?), ?) AS piece, count(), countIf(t.errors > 0)"
            f" FROM {dialect.traces.sql} WHERE {condition.sql} GROUP BY piece",
            (low, width, buckets - 1, *dialect.traces.parameters, *condition.parameters),
        )
    }
    return tuple(Bucket(low + width * piece, *counted.get(piece, (0, 0))) for piece in range(buckets))


def sparklines(
    question: Question, dialect: ClickHouseDialect, end_users: Sequence[str], view: View, now: int, buckets: int
) -> dict[str, tuple[int, ...]]:
    """See `TraceReader.sparklines`."""
    condition = conjunction([any_name("t.end_user", end_users), in_period(view, now)])
    low, width = _pieces(question, dialect, condition, view, now, buckets)
    lines = {end_user: [0] * buckets for end_user in end_users}
    for end_user, piece, traces in question.rows(
        "SELECT t.end_user, least(intDiv(t.start - ?, ?), ?) AS piece, count()"
        f" FROM {dialect.traces.sql} WHERE {condition.sql} GROUP BY t.end_user, piece",
        (low, width, buckets - 1, *dialect.traces.parameters, *condition.parameters),
    ):
        lines[end_user][piece] = traces
    return {end_user: tuple(line) for end_user, line in lines.items()}


def _pieces(
    question: Question, dialect: ClickHouseDialect, condition: Condition, view: View, now: int, buckets: int
) -> tuple[int, int]:
    first = None
    if begins_with_the_first(view):
        ((first, any_),) = question.rows(
            f"SELECT min(t.start), count() FROM {dialect.traces.sql} WHERE {condition.sql}",
            (*dialect.traces.parameters, *condition.parameters),
        )
        first = first if any_ else None
    return equal_pieces(view, now, buckets, first)
