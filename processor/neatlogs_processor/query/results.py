"""What the store answers: plain records, ready for a page, for JSON and for CSV.

Times are integers in nanoseconds since the epoch, durations integers in nanoseconds, ids lower-case hexadecimal text.
`None` means that nobody said: an end user of `None` beside `root_received=False` is not known, beside `True` it is
a trace without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

R = TypeVar("R")


@dataclass(frozen=True)
class Page(Generic[R]):
    """One page of a list.

    Attributes:
        rows: At most as many as asked for, in the order of the view.
        next_cursor: What a view's `cursor` has to be to see the rows after these; `None` on the last page.
    """

    rows: tuple[R, ...]
    next_cursor: str | None


@dataclass(frozen=True)
class TraceRow:
    """One trace of a list.

    Attributes:
        trace_id: 32 hexadecimal digits (or what its sender used for one).
        start, end, duration: Earliest start, latest end, and the time between.
        spans, errors: How many spans, and how many of them with status error.
        tokens_input, tokens_output, tokens: Of the model calls.
        root_received: False while no root has arrived.
        roots: How many roots arrived; over 1 is a conflict, and the earliest one speaks for the trace.
        status: The root's: `unset`, `ok` or `error`.
        service: The root's `service.name`; `services` names those of all spans.
        overrides: How many ignored overrides are recorded for it.
    """

    trace_id: str
    start: int
    end: int
    duration: int
    spans: int
    errors: int
    tokens_input: int
    tokens_output: int
    tokens: int
    root_received: bool
    roots: int
    status: str
    service: str
    name: str | None
    workflow: str | None
    session: str | None
    end_user: str | None
    source: str | None
    metadata: dict[str, Any] | None
    services: tuple[str, ...]
    tags: tuple[str, ...]
    overrides: int


@dataclass(frozen=True)
class SessionRow:
    """One session: the sum of its traces within the period.

    Attributes:
        end_users: Whose traces it holds, in the order of their names; several are a mixed session.
        traces, spans, errors, tokens: Sums.
        start, end, duration: First start, last end, and the time between.
        workflows: Of its traces, in the order of their names.
    """

    session: str
    end_users: tuple[str, ...]
    traces: int
    spans: int
    errors: int
    tokens: int
    start: int
    end: int
    duration: int
    workflows: tuple[str, ...]

    @property
    def mixed(self) -> bool:
        """Whether its traces name several end users."""
        return len(self.end_users) > 1


@dataclass(frozen=True)
class UserRow:
    """One end user: the sum of their traces within the period.

    Attributes:
        metadata: The latest they have, whatever the period.
        sessions: How many different ones.
        duration: Of all their traces together.
        first_seen, last_seen: The start of their first and of their last trace within the period.
    """

    end_user: str
    metadata: dict[str, Any] | None
    traces: int
    sessions: int
    spans: int
    errors: int
    tokens: int
    duration: int
    first_seen: int
    last_seen: int


@dataclass(frozen=True)
class Summary:
    """The sum of all traces that a view's filters and period select."""

    traces: int
    end_users: int
    sessions: int
    spans: int
    errors: int
    tokens: int


@dataclass(frozen=True)
class Bucket:
    """A piece of a period in a chart: how many traces start in it, and how many of them have errors."""

    start: int
    traces: int
    errors: int


@dataclass(frozen=True)
class EventDetail:
    """An event of a span."""

    name: str
    time: int
    attributes: dict[str, Any]


@dataclass(frozen=True)
class LinkDetail:
    """A link of a span to another."""

    trace_id: str
    span_id: str
    attributes: dict[str, Any]


@dataclass(frozen=True)
class OverrideRow:
    """An ignored override: where it stood and under which key; its value is not kept."""

    span_id: str
    place: str
    service: str
    span_name: str
    key: str


@dataclass(frozen=True)
class SpanDetail:
    """One span, whole.

    Attributes:
        parent_id: Empty for a root span. The parent may not have arrived.
        depth: Steps to the topmost ancestor that arrived.
        kind: `llm`, `tool`, ... in lower case; empty where the span does not say.
        otel_kind: `internal`, `server`, `client`, `producer`, `consumer` or `unspecified`.
        owns_identity: Whether it is a span that may name the trace's end user (a root).
        attributes: Values as JSON has them: bytes as base64 text, NaN and infinities as text.
        dropped: How many attributes, events and links the application's SDK left out.
    """

    span_id: str
    parent_id: str
    depth: int
    name: str
    kind: str
    otel_kind: str
    owns_identity: bool
    start: int
    end: int
    duration: int
    status: str
    status_message: str
    tokens: int
    service: str
    scope: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    events: tuple[EventDetail, ...]
    links: tuple[LinkDetail, ...]
    dropped: int


@dataclass(frozen=True)
class TraceDetail:
    """A trace with its spans: parents before children, siblings by start.

    Attributes:
        overrides: At most 1,000 of them.
        spans_left_out: How many more there are than the 10,000 that are given: roots first, then the earliest.
    """

    trace: TraceRow
    spans: tuple[SpanDetail, ...]
    overrides: tuple[OverrideRow, ...]
    spans_left_out: int = 0


@dataclass(frozen=True)
class Neighbours:
    """The traces before and after one in the order of a view, by id; `None` at the ends."""

    previous: str | None
    next: str | None


@dataclass(frozen=True)
class UserDetail:
    """An end user: sums, latest sessions and traces, and traces over time."""

    user: UserRow
    sessions: tuple[SessionRow, ...]
    traces: tuple[TraceRow, ...]
    buckets: tuple[Bucket, ...]


@dataclass(frozen=True)
class SessionDetail:
    """A session with its traces (its turns) in the order of their start."""

    session: SessionRow
    traces: tuple[TraceRow, ...]


@dataclass(frozen=True)
class CoverageRow:
    """How many traces of a service, or of a day, have an end user.

    Attributes:
        key: The root's `service.name`, or the day in UTC as `2026-11-20`.
        traces: All of them.
        with_end_user: Those whose root names an end user.
        without_end_user: Those whose root names nobody.
        root_not_received: Those of which nobody can say.
    """

    key: str
    traces: int
    with_end_user: int
    without_end_user: int
    root_not_received: int

    @property
    def share(self) -> float | None:
        """Traces with an end user by traces whose root is here, 0 to 1; `None` where there is no such trace."""
        known = self.with_end_user + self.without_end_user
        return self.with_end_user / known if known else None


@dataclass(frozen=True)
class HandlerRow:
    """Roots of one service and name that came without an end user: the handler that forgot to set it."""

    service: str
    name: str
    traces: int
    last_trace_id: str


@dataclass(frozen=True)
class OverridePlaceRow:
    """Where overrides are ignored again and again.

    Attributes:
        spans: How many times it was recorded.
        last_trace_id: A trace to look at; empty for an instrumentation scope.
    """

    service: str
    span_name: str
    place: str
    key: str
    spans: int
    last_trace_id: str


@dataclass(frozen=True)
class Coverage:
    """Who sets the end user, and who does not."""

    total: CoverageRow
    services: tuple[CoverageRow, ...]
    days: tuple[CoverageRow, ...]
    handlers: tuple[HandlerRow, ...]
    overrides: tuple[OverridePlaceRow, ...]


@dataclass(frozen=True)
class ValueCount:
    """An observed value, as it is typed in a filter, or key of metadata, and in how many traces it was seen."""

    value: str
    traces: int


@dataclass(frozen=True)
class Exclusion:
    """What a list would hold without one of its filters, or without its period.

    Attributes:
        without: The filter's place in the view's filters, or `None` for the period.
        rows: How many rows there would be, counted up to `EXCLUSION_LIMIT`.
    """

    without: int | None
    rows: int


EXCLUSION_LIMIT = 1000
"""Rows that an `Exclusion` counts at most."""
