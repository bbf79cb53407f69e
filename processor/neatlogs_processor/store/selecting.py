"""From a view to the text of a query: what is selected, in which order, from which row on.

Only constants of this package and question marks enter the text; see `neatlogs_processor.query.conditions`.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, replace
from typing import Any, Final

from neatlogs_processor.query.conditions import grouped_numbers, of_group, of_trace
from neatlogs_processor.query.dialect import Condition, Dialect, conjunction
from neatlogs_processor.query.errors import QueryError
from neatlogs_processor.query.sqlite_dialect import SQLITE
from neatlogs_processor.query.view import Period, Tab, View

_LATEST: Final = 2**63 - 1
GROUP_COLUMN: Final = {Tab.SESSIONS: "t.session", Tab.USERS: "t.end_user"}


@dataclass(frozen=True)
class Selection:
    """The conditions of a view: on each trace, and (empty for traces) on traces that are grouped."""

    where: Condition
    having: Condition

    @property
    def parameters(self) -> tuple[Any, ...]:
        """All that is bound, in the order of `where` and `having`."""
        return (*self.where.parameters, *self.having.parameters)


def in_period(view: View, now: int) -> Condition:
    """Return the condition that a trace starts within the view's period."""
    return Condition("t.start >= ? AND t.start < ?", view.period.bounds(now))


def traces_of(view: View, now: int, dialect: Dialect = SQLITE) -> Condition:
    """Return the condition on a trace, whatever the view's tab."""
    return conjunction([in_period(view, now), *(of_trace(filter_, dialect) for filter_ in view.filters)])


def select(view: View, now: int, dialect: Dialect = SQLITE) -> Selection:
    """Return the conditions of the list that the view's tab shows."""
    if view.tab not in GROUP_COLUMN:
        return Selection(traces_of(view, now, dialect), Condition("1"))
    grouped = [of_group(filter_, view.tab, dialect) for filter_ in view.filters]
    column = GROUP_COLUMN[view.tab]
    traces = [Condition(f"{column} IS NOT NULL"), in_period(view, now)]
    traces += [one.where for one in grouped if one.where is not None]
    # First which rows have such a trace, and then only those are added up.
    where = list(traces)
    for one in grouped:
        if one.any is not None:
            such = conjunction([*traces, one.any])
            table = dialect.traces
            named = f"{column} IN (SELECT {column} FROM {table.sql} WHERE {such.sql})"  # noqa: S608  # names are ours
            where.append(Condition(named, (*table.parameters, *such.parameters)))
    return Selection(conjunction(where), conjunction(one.having for one in grouped if one.having is not None))


@dataclass(frozen=True)
class Order:
    """The order of a view's list: an expression, the tie breaker behind it, and the direction of both."""

    expression: str
    tie: str
    descending: bool

    def by(self, *, backwards: bool = False) -> str:
        """What stands behind ORDER BY."""
        direction = "DESC" if self.descending != backwards else "ASC"
        if self.expression == self.tie:
            return f"{self.tie} {direction}"
        return f"{self.expression} {direction}, {self.tie} {direction}"

    def after(self, value: Any, tie: Any, *, backwards: bool = False) -> Condition:
        """Say that a row stands behind (backwards: before) the one with this value and this tie."""
        sign = "<" if self.descending != backwards else ">"
        return Condition(f"({self.expression}, {self.tie}) {sign} (?, ?)", (value, tie))


def order_of(view: View, dialect: Dialect = SQLITE) -> Order:
    """Return the order of the view's list."""
    tie = GROUP_COLUMN.get(view.tab, dialect.tie)
    return Order(_sorted_by(view.tab, view.order.key, dialect), tie, view.order.descending)


def _sorted_by(tab: Tab, key: str, dialect: Dialect) -> str:
    """Return what a name of `view.SORTS` stands for."""
    if tab is Tab.TRACES:
        return f"t.{key}"
    return {
        "end": 'max(t."end")',
        "traces": "count(*)",
        "sessions": "count(DISTINCT t.session)",
        "first_seen": "min(t.start)",
        "last_seen": "max(t.start)",
        "end_user": "t.end_user",
        **grouped_numbers(tab, dialect),
    }[key]


def narrowed(view: View, now: int, place: tuple[Any, Any], *, backwards: bool = False) -> View:
    """Return the view for the rows behind (backwards: before) a place, where its period can end or begin there.

    It leaves out nothing that `Order.after` would not: SQLite looks up one bound of a kind, and for a page far down in
    the list that has to be the place and not the end of the period.
    """
    start = place[0]
    if view.order.key != "start" or not isinstance(start, int) or not 0 <= start < _LATEST:
        return view
    low, high = view.period.bounds(now)
    if view.order.descending != backwards:
        high = min(high, start + 1)
    else:
        low = max(low, start)
    return replace(view, period=Period(start=low, end=high))


def write_cursor(view: View, value: Any, tie: Any) -> str:
    """Return the cursor of the rows behind the one with this value and this tie."""
    said = json.dumps([view.tab.value, view.order.text, value, tie], ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(said.encode()).decode().rstrip("=")


def read_cursor(view: View) -> tuple[Any, Any] | None:
    """Return the value and the tie in the view's cursor, `None` where it has none; see `is_reference`.

    Raises:
        QueryError: It is not a cursor of this list in this order.
    """
    if view.cursor is None:
        return None
    try:
        padded = view.cursor + "=" * (-len(view.cursor) % 4)
        tab, order, value, tie = json.loads(base64.urlsafe_b64decode(padded))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise QueryError("this is no cursor of a list", parameter="cursor") from None
    if tab != view.tab.value or order != view.order.text:
        raise QueryError("this cursor belongs to another list, or to another order of it", parameter="cursor")
    if not all(_is_bindable(one) or (view.tab in GROUP_COLUMN and is_reference(one)) for one in (value, tie)):
        raise QueryError("this is no cursor of a list", parameter="cursor")
    return value, tie


def is_reference(value: object) -> bool:
    """Tell whether a part of a cursor is, in place of a long id, the tie breaker of a trace that has it."""
    return isinstance(value, list) and len(value) == 1 and _is_bindable(value[0])


def _is_bindable(value: object) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return -(2**63) <= value < 2**63
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)
