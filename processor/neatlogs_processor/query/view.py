"""The whole state of the page as one value, and as a URL: `View.from_query(view.tab, view.query) == view`.

A query string has these parameters, each at most once except `filter`:

    filter   filters in their text form, joined by AND with those of the other `filter` parameters
    last     how far back from now: 15m, 24h, 7d, all; 7d where nothing is said
    from,to  instead: from (included) and to (excluded) a time
    sort     a name of `SORTS`, with a minus in front for the largest first
    cursor   where the page of a list begins, from the page before
    limit    how many rows a page of a list has
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl, urlencode

from neatlogs_processor.query import text, units
from neatlogs_processor.query.errors import QueryError
from neatlogs_processor.query.filters import MAX_FILTERS, Filter

MAX_LIMIT: Final = 500
"""How many rows somebody may ask for at once."""
TABLE_LIMIT: Final = 5000
"""How many rows of a table are read at once: each time, sessions and end users are added up from the beginning."""
DEFAULT_LIMIT: Final = 50
MAX_QUERY_CHARS: Final = 100_000
"""How long a query string may be."""

_PARAMETERS: Final = ("filter", "last", "from", "to", "sort", "cursor", "limit")
_TRACE_ID: Final = re.compile(r"(?:[0-9a-f]{2}){1,64}")
_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{1,8000}", re.ASCII)
_LIMIT: Final = re.compile(r"[0-9]{1,4}", re.ASCII)
_DAY: Final = units.UNITS["d"]
_MAX: Final = 2**63 - 1


class Tab(str, Enum):
    """What a view lists."""

    TRACES = "traces"
    SESSIONS = "sessions"
    USERS = "users"
    COVERAGE = "coverage"


SORTS: Final[dict[Tab, tuple[str, ...]]] = {
    Tab.TRACES: ("start", "duration", "spans", "errors", "tokens"),
    Tab.SESSIONS: ("start", "end", "duration", "traces", "spans", "errors", "tokens"),
    Tab.USERS: ("last_seen", "first_seen", "traces", "sessions", "spans", "errors", "tokens", "end_user"),
    Tab.COVERAGE: (),
}
"""What each list can be sorted by. The first one is the default, the largest first."""


@dataclass(frozen=True)
class Sort:
    """The order of a list: a name of `SORTS`, and whether the largest comes first."""

    key: str
    descending: bool = True

    @property
    def text(self) -> str:
        """As a URL says it: `-start`."""
        return f"-{self.key}" if self.descending else self.key


@dataclass(frozen=True)
class Period:
    """Which traces count, by their start: the last so many nanoseconds, or from one time to another.

    Attributes:
        last: How far back from now; then `start` and `end` are `None`.
        start: The first nanosecond that counts; `None` has no beginning.
        end: The first nanosecond that does not count any more; `None` has no end.
    """

    last: int | None = None
    start: int | None = None
    end: int | None = None

    def __post_init__(self) -> None:
        if self.last is not None and (self.start is not None or self.end is not None):
            raise ValueError("a period is relative or absolute, not both")
        if any(time is not None and not 0 <= time <= _MAX for time in (self.last, self.start, self.end)):
            raise ValueError("a time is between 0 and 2^63 - 1")

    def bounds(self, now: int) -> tuple[int, int]:
        """Return the first nanosecond that counts, and the first after it that does not."""
        if self.last is not None:
            # Clocks of senders differ: what seems to come from the near future belongs to the last minutes.
            return max(0, now - self.last), _MAX
        return self.start or 0, _MAX if self.end is None else self.end

    @property
    def is_everything(self) -> bool:
        """Whether it leaves nothing out."""
        return self.last is None and self.start is None and self.end is None

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """As a query string says it; nothing for the default."""
        if self == DEFAULT_PERIOD:
            return []
        if self.last is not None:
            return [("last", _write_span(self.last))]
        times = [("from", self.start), ("to", self.end)]
        return [(name, units.write_time(time)) for name, time in times if time is not None] or [("last", "all")]

    @property
    def sentence(self) -> str:
        """The period in English: `of the last 7 days`, `since 2026-11-20`."""
        if self.last is not None:
            return f"of the last {_say_span(self.last)}"
        since = f"since {units.write_time(self.start)}" if self.start is not None else ""
        until = f"before {units.write_time(self.end)}" if self.end is not None else ""
        return " and ".join(part for part in (since, until) if part) or "of all time"


DEFAULT_PERIOD: Final = Period(last=7 * _DAY)
ALL_TIME: Final = Period()


def _write_span(nanoseconds: int) -> str:
    whole_days = nanoseconds and nanoseconds % _DAY == 0
    return f"{nanoseconds // _DAY}d" if whole_days else units.write_duration(nanoseconds)


def _say_span(nanoseconds: int) -> str:
    """Return a span of time as one says it: `7 days`, `24 hours`; in short form where it is of no such kind."""
    for size, name in ((_DAY, "day"), (_DAY // 24, "hour"), (_DAY // 1440, "minute")):
        count, rest = divmod(nanoseconds, size)
        if count and not rest:
            # The periods that are offered say 24 hours, not 1 day.
            return f"{count} {name}s" if count > 1 else {"day": "24 hours"}.get(name, name)
    return units.write_duration(nanoseconds)


@dataclass(frozen=True)
class View:
    """What somebody looks at.

    Attributes:
        tab: What is listed.
        filters: All of them must hold.
        period: Which traces count.
        sort: The order; `None` is the default one, newest first.
        cursor: Where the page begins; `None` is the first page. It goes with the sort.
        limit: Rows of a page, 1 to `TABLE_LIMIT`; an address says at most `MAX_LIMIT`.
        trace: The id of the open trace, in lower-case hexadecimal digits.

    Raises:
        ValueError: A part is not what it may be, or does not go with the tab.
    """

    tab: Tab = Tab.TRACES
    filters: tuple[Filter, ...] = ()
    period: Period = DEFAULT_PERIOD
    sort: Sort | None = None
    cursor: str | None = None
    limit: int = DEFAULT_LIMIT
    trace: str | None = None

    def __post_init__(self) -> None:
        if len(self.filters) > MAX_FILTERS:
            raise ValueError(f"there may be {MAX_FILTERS} filters")
        if self.sort is not None and self.sort.key not in SORTS[self.tab]:
            raise ValueError(f"{self.tab.value} are not sorted by {self.sort.key}")
        if self.cursor is not None and _CURSOR.fullmatch(self.cursor) is None:
            raise ValueError("this is no cursor")
        if not 1 <= self.limit <= TABLE_LIMIT:
            raise ValueError(f"limit is between 1 and {TABLE_LIMIT}")
        if self.trace is not None and _TRACE_ID.fullmatch(self.trace) is None:
            raise ValueError("a trace id is hexadecimal digits")

    @classmethod
    def from_query(cls, tab: Tab, query: str, *, trace: str | None = None, ignore: Sequence[str] = ()) -> View:
        """Return the view that the query string of a tab's (or trace's) address says.

        Args:
            tab: From the path.
            query: As it stands behind the question mark, percent-encoded.
            trace: From the path, where a trace is open.
            ignore: Names of parameters that belong to somebody else.

        Raises:
            QueryError: A parameter is unknown, stands twice, or does not say what it may say.
        """
        single: dict[str, str] = {}
        filters: list[Filter] = []
        for name, value in _pairs(query):
            if name == "filter":
                filters.extend(_filters(value, sum(1 for known in single if known.startswith("filter "))))
                single[f"filter {len(single)}"] = value
            elif name in single:
                raise QueryError(f"{name} stands twice", parameter=name)
            elif name in _PARAMETERS:
                single[name] = value
            elif name not in ignore:
                raise QueryError(
                    f'there is no parameter "{name[:50]}"; there are {", ".join(_PARAMETERS)}',
                    parameter=name[:50],
                    expected=_PARAMETERS,
                )
        if len(filters) > MAX_FILTERS:
            raise QueryError(f"there may be {MAX_FILTERS} filters")
        cursor = single.get("cursor") or None
        if cursor is not None and _CURSOR.fullmatch(cursor) is None:
            raise QueryError("this is no cursor of a list", parameter="cursor")
        trace_id = trace.lower() if trace is not None else None
        if trace_id is not None and _TRACE_ID.fullmatch(trace_id) is None:
            raise QueryError("a trace id is hexadecimal digits", parameter="trace_id", expected=("<hexadecimal>",))
        return cls(
            tab, tuple(filters), _period(single), _sort(tab, single.get("sort")), cursor, _limit(single), trace_id
        )

    @property
    def query(self) -> str:
        """The query string, percent-encoded, without the question mark; empty for the default state."""
        pairs = list(self.period.parameters)
        pairs += [("sort", self.sort.text)] if self.sort else []
        pairs += [("cursor", self.cursor)] if self.cursor else []
        pairs += [("limit", str(self.limit))] if self.limit != DEFAULT_LIMIT else []
        return "&".join([*map(_written, self.filters), *([urlencode(pairs)] if pairs else [])])

    @property
    def url(self) -> str:
        """The address of this view, from the root of the page: `/traces?filter=...`, `/traces/4bf9...?filter=...`."""
        path = f"/{self.tab.value}" if self.trace is None else f"/{self.tab.value}/{self.trace}"
        return f"{path}?{self.query}" if self.query else path

    @property
    def order(self) -> Sort:
        """The order that applies."""
        return self.sort or Sort(SORTS[self.tab][0])

    @property
    def sentence(self) -> str:
        """The view in English: `Traces whose end user contains “ali”, of the last 7 days`."""
        names = {Tab.USERS: "End users", Tab.COVERAGE: "Coverage of traces"}
        name = names.get(self.tab, self.tab.value.capitalize())
        conditions = " and ".join(filter_.sentence for filter_ in self.filters)
        return f"{name} whose {conditions}, {self.period.sentence}" if conditions else f"{name} {self.period.sentence}"

    def on(self, tab: Tab) -> View:
        """Return the same filters and period on another tab, from the first row in the tab's own order."""
        return View(tab, self.filters, self.period, limit=self.limit)

    def with_filters(self, filters: Iterable[Filter]) -> View:
        """Return the view with these filters instead, from the first row."""
        return replace(self, filters=tuple(filters), cursor=None, trace=None)

    def adding(self, filter_: Filter) -> View:
        """Return the view with one filter more, unless it has it already, from the first row."""
        return self.with_filters(self.filters if filter_ in self.filters else (*self.filters, filter_))

    def without(self, index: int) -> View:
        """Return the view without the filter at this place, from the first row."""
        return self.with_filters(self.filters[:index] + self.filters[index + 1 :])

    def during(self, period: Period) -> View:
        """Return the view of another period, from the first row."""
        return replace(self, period=period, cursor=None, trace=None)

    def sorted_by(self, sort: Sort | None) -> View:
        """Return the view in another order, from the first row."""
        return replace(self, sort=sort, cursor=None, trace=None)

    def from_cursor(self, cursor: str | None) -> View:
        """Return another page of the list."""
        return replace(self, cursor=cursor, trace=None)

    def opening(self, trace: str | None) -> View:
        """Return the view with this trace open, or with none."""
        return replace(self, trace=trace)


@lru_cache(maxsize=64)
def _written(filter_: Filter) -> str:
    """Return a filter as a parameter; a page of a list has hundreds of links with the same ones."""
    return urlencode([("filter", text.render(filter_))])


def _pairs(query: str) -> list[tuple[str, str]]:
    if len(query) > MAX_QUERY_CHARS:
        raise QueryError(f"a query string has at most {MAX_QUERY_CHARS:,} characters", parameter="")
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_FILTERS + 32)
    except UnicodeDecodeError:
        raise QueryError("the query string is not UTF-8", parameter="") from None
    except ValueError:
        raise QueryError("the query string has too many parameters", parameter="") from None


def _filters(value: str, index: int) -> tuple[Filter, ...]:
    try:
        return text.parse(value)
    except QueryError as error:
        raise error.at(index) from None


def _period(single: dict[str, str]) -> Period:
    # Forms send their empty inputs too.
    last, start, end = (single.get(name) or None for name in ("last", "from", "to"))
    if start is not None or end is not None:
        if last is not None:
            raise QueryError("a period is said by last, or by from and to", parameter="last")
        return Period(start=_time("from", start), end=_time("to", end))
    if last is None:
        return DEFAULT_PERIOD
    if last == "all":
        return ALL_TIME
    try:
        return Period(last=units.read_duration(last))
    except ValueError as error:
        raise QueryError(str(error), parameter="last", expected=("15m", "1h", "24h", "7d", "30d", "all")) from None


def _time(name: str, value: str | None) -> int | None:
    try:
        return None if value is None else units.read_time(value)
    except ValueError as error:
        raise QueryError(str(error), parameter=name, expected=("<a time, such as 2026-11-20T10:00:00Z>",)) from None


def _sort(tab: Tab, value: str | None) -> Sort | None:
    if not value:
        return None
    key = value.removeprefix("-")
    if key not in SORTS[tab]:
        allowed = tuple(sign + name for name in SORTS[tab] for sign in ("-", ""))
        raise QueryError(f"{tab.value} are not sorted by that", parameter="sort", expected=allowed)
    return Sort(key, value.startswith("-"))


def _limit(single: dict[str, str]) -> int:
    value = single.get("limit") or str(DEFAULT_LIMIT)
    if _LIMIT.fullmatch(value) is None or not 1 <= int(value) <= MAX_LIMIT:
        raise QueryError(f"limit is a number from 1 to {MAX_LIMIT}", parameter="limit")
    return int(value)
