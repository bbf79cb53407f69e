"""A filter as bound SQL, in the dialect of either engine, over the traces under the name `t`.

On Traces a filter is about the trace. On Sessions and Users a row stands for many traces:

- numbers are those of the row: sums; `duration` and `start` as `grouped_numbers` says;
- metadata on Users is the latest that the end user has;
- everything else, metadata on Sessions included, is true of the row if it is true of any of its traces, and what says
  no (`is not`, `does not contain`, `is none of`, `is not set`) is true if its opposite is true of none of them.

So a filter and its opposite divide every list in two, and nothing is in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from neatlogs_processor.query.dialect import PARTIAL, Condition, Dialect, Grouped, alternative, any_of, compare
from neatlogs_processor.query.fields import ERROR, METADATA, OK, STATUSES, Kind, Operator
from neatlogs_processor.query.filters import Filter
from neatlogs_processor.query.view import Tab

_GROUP_COLUMN: Final = {Tab.SESSIONS: "session", Tab.USERS: "end_user"}


def grouped_numbers(tab: Tab, dialect: Dialect) -> Mapping[str, str]:
    """Return what a number means where a row stands for many traces.

    Of a session the duration is the time from first start to last end; of an end user the time that their traces took
    together; `start` is the first.
    """
    return {
        "duration": dialect.lasted if tab is Tab.SESSIONS else dialect.added_up(dialect.took),
        "start": "min(t.start)",
        "tokens": dialect.added_up("t.tokens"),
        "spans": "sum(t.spans)",
        "errors": "sum(t.errors)",
    }


def of_trace(filter_: Filter, dialect: Dialect) -> Condition:
    """Return the condition on one trace."""
    positive = filter_.operator.positive
    if positive is None:
        return _positive(filter_, filter_.operator, dialect)
    condition = _positive(filter_, positive, dialect)
    return Condition(f"NOT coalesce({condition.sql}, 0)", condition.parameters)


def of_group(filter_: Filter, tab: Tab, dialect: Dialect) -> Grouped:
    """Return the condition on a session or an end user: traces grouped by the column of the tab."""
    spec = filter_.field.spec
    if spec.column == _GROUP_COLUMN[tab]:
        # The same for all traces of a row, so that it can be asked before they are added up.
        return Grouped(where=of_trace(filter_, dialect))
    number = grouped_numbers(tab, dialect).get(spec.name)
    if number is not None:
        return Grouped(having=compare(number, filter_.operator, filter_.values[0]))
    positive = filter_.operator.positive
    if tab is Tab.USERS and spec.name == METADATA:
        return dialect.latest_metadata(
            lambda table: _positive(filter_, positive or filter_.operator, dialect, table=table),
            negated=positive is not None,
        )
    condition = _positive(filter_, positive or filter_.operator, dialect)
    if positive is None:
        return Grouped(any=condition)
    return Grouped(having=Condition(f"max(coalesce({condition.sql}, 0)) = 0", condition.parameters))


def _positive(filter_: Filter, operator: Operator, dialect: Dialect, *, table: str = "t") -> Condition:
    spec, values = filter_.field.spec, filter_.values
    if spec.kind is Kind.JSON:
        return dialect.metadata(filter_.field, operator, values, table)
    column = f"{table}.{spec.column}"
    if spec.kind in (Kind.COUNT, Kind.DURATION, Kind.TIME):
        return compare(column, operator, values[0])
    if spec.kind is Kind.SET:
        return dialect.members(spec, operator, [str(value).replace("\n", " ") for value in values], table)
    if operator is Operator.IS_SET:
        return Condition(f"{column} IS NOT NULL")
    if spec.kind is Kind.HEX:
        return dialect.trace_id(column, operator, [str(value).lower() for value in values])
    if spec.kind is Kind.CHOICE:
        return _status(table, [str(value) for value in values])
    if operator in PARTIAL:
        return dialect.partial(f"{table}.{spec.folded}", operator, str(values[0]))
    return dialect.one_of(column, [str(value) for value in values])


def _status(table: str, words: list[str]) -> Condition:
    """Compare the root's status. Most senders say `error` or nothing, so what is no error went well."""
    others = [STATUSES[word] for word in words if word != OK]
    found = [any_of(f"{table}.status", others)] if others else []
    if OK in words:
        # Only a root that has arrived has a name, be it empty.
        found.append(Condition(f"({table}.status <> ? AND {table}.name IS NOT NULL)", (STATUSES[ERROR],)))
    return alternative(found)
