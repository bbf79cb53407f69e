"""What a page may ask of a store. The store that answers is in `neatlogs_processor.store`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from neatlogs_processor.query.fields import Field
from neatlogs_processor.query.results import (
    Bucket,
    Coverage,
    Exclusion,
    Neighbours,
    Page,
    SessionDetail,
    SessionRow,
    Summary,
    TraceDetail,
    TraceRow,
    UserDetail,
    UserRow,
    ValueCount,
)
from neatlogs_processor.query.view import View


class TraceReader(Protocol):
    """Answers questions about stored traces. Every method blocks, and may be called from any thread.

    `now` is the time that relative periods end at, in nanoseconds since the epoch.
    """

    def traces(self, view: View, *, now: int) -> Page[TraceRow]:
        """Return one page of the traces that the view selects."""

    def sessions(self, view: View, *, now: int) -> Page[SessionRow]:
        """Return one page of the sessions that the view selects."""

    def users(self, view: View, *, now: int) -> Page[UserRow]:
        """Return one page of the end users that the view selects."""

    def summary(self, view: View, *, now: int) -> Summary:
        """Return the sum of the traces that the view's filters select, read as filters of traces."""

    def histogram(self, view: View, *, now: int, buckets: int) -> tuple[Bucket, ...]:
        """Return the traces that the view's filters select over its period, in equal pieces."""

    def newer(self, view: View, *, now: int, than: str) -> int:
        """Return how many rows of the view's list stand before the trace `than`, counted up to 1,000."""

    def neighbours(self, view: View, trace_id: str, *, now: int) -> Neighbours:
        """Return the traces beside this one in the order of the view."""

    def trace(self, trace_id: str) -> TraceDetail | None:
        """Return a whole trace, or `None` if it is not here."""

    def session(self, session: str) -> SessionDetail | None:
        """Return a whole session (its latest 1,000 traces), or `None` if it is not here."""

    def user(self, end_user: str, view: View, *, now: int) -> UserDetail | None:
        """Return an end user, or `None` if nothing of theirs is here at all.

        Sums are those of the view's period; first and last seen are of all time.
        """

    def sparklines(self, end_users: Sequence[str], view: View, *, now: int, buckets: int) -> dict[str, tuple[int, ...]]:
        """Return how many traces each end user has in each of the equal pieces of the view's period."""

    def coverage(self, view: View, *, now: int) -> Coverage:
        """Return who sets the end user, among the traces that the view's filters select."""

    def values(self, field: Field, prefix: str, view: View, *, now: int, limit: int) -> tuple[ValueCount, ...]:
        """Return observed values of a field that contain `prefix`, ignoring case, the most frequent first.

        As they are typed in a filter, so in quotes where they need them; counted among the latest traces of the view.
        """

    def metadata_keys(self, prefix: str, view: View, *, now: int, limit: int) -> tuple[ValueCount, ...]:
        """Return observed keys of metadata, dotted, that contain `prefix`, ignoring case, the most frequent first."""

    def exclusions(self, view: View, *, now: int) -> tuple[Exclusion, ...]:
        """Return what the view's list would hold without each one of its filters, and without its period."""
