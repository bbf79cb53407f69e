"""`TraceReader` over a ClickHouse server.

A question is several statements, and ClickHouse has no moment that they share: what is written meanwhile may be in the
later ones. Rollups follow the spans within the insert that brings them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from neatlogs_processor.query.dialect import Condition, conjunction
from neatlogs_processor.query.fields import Field, Operator
from neatlogs_processor.query.filters import Filter
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
from neatlogs_processor.query.view import ALL_TIME, Tab, View
from neatlogs_processor.store.clickhouse import coverage, details, lists, observed, traces
from neatlogs_processor.store.clickhouse.asking import ANSWER_SECONDS, Connection
from neatlogs_processor.store.clickhouse.connection import ClickHouseLogin, connect
from neatlogs_processor.store.reader import MAX_BESIDE_A_USER, MAX_TURNS, replace_tab
from neatlogs_processor.store.selecting import in_period

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_BUCKETS: Final = 60
_GRACE_SECONDS: Final = 2.0


class ClickHouseReader:
    """Answers questions about the traces that a ClickHouse server keeps, from any thread.

    Implements `query.reader.TraceReader`.

    Args:
        connect: Returns a client that several threads may use at once (`autogenerate_session_id=False`). It is called
            when the first question comes, and again after it failed.
        patience: Seconds that one statement may take, and that a question waits for others to be answered.

    Raises:
        StoreUnavailableError: From every method: the server cannot be reached, or does not answer in time, or refuses.
        QueryError: From the lists: the view's cursor is none of this list.
    """

    def __init__(self, connect: Callable[[], Client], *, patience: float = ANSWER_SECONDS) -> None:
        self._server = Connection(connect, patience=patience)

    @classmethod
    def at(cls, login: ClickHouseLogin) -> ClickHouseReader:
        """Return a reader of a database. Nothing is connected to before the first question.

        Args:
            login: Where it is, and how to get in.
        """
        # Whoever has waited for longer than the server may take does not want the answer: the server sees that, too.
        return cls(lambda: connect(login, patience=ANSWER_SECONDS + _GRACE_SECONDS))

    def close(self) -> None:
        """Close the connections to the server."""
        self._server.close()

    def traces(self, view: View, *, now: int) -> Page[TraceRow]:
        """See `TraceReader`."""
        with self._server.question() as question:
            return traces.traces(question, replace_tab(view, Tab.TRACES), now)

    def sessions(self, view: View, *, now: int) -> Page[SessionRow]:
        """See `TraceReader`."""
        with self._server.question() as question:
            return lists.sessions(question, replace_tab(view, Tab.SESSIONS), now)

    def users(self, view: View, *, now: int) -> Page[UserRow]:
        """See `TraceReader`."""
        with self._server.question() as question:
            return lists.users(question, replace_tab(view, Tab.USERS), now)

    def summary(self, view: View, *, now: int) -> Summary:
        """See `TraceReader`."""
        with self._server.question() as question:
            return lists.summary(question, view, now)

    def histogram(self, view: View, *, now: int, buckets: int) -> tuple[Bucket, ...]:
        """See `TraceReader`."""
        with self._server.question() as question:
            return observed.histogram(question, view, now, buckets)

    def newer(self, view: View, *, now: int, than: str) -> int:
        """See `TraceReader`."""
        with self._server.question() as question:
            return traces.newer(question, replace_tab(view, Tab.TRACES), now, than)

    def neighbours(self, view: View, trace_id: str, *, now: int) -> Neighbours:
        """See `TraceReader`."""
        with self._server.question() as question:
            return traces.neighbours(question, replace_tab(view, Tab.TRACES), trace_id, now)

    def trace(self, trace_id: str) -> TraceDetail | None:
        """See `TraceReader`."""
        with self._server.question() as question:
            return details.trace(question, trace_id)

    def session(self, session: str) -> SessionDetail | None:
        """See `TraceReader`."""
        everything = View(Tab.SESSIONS, period=ALL_TIME)
        with self._server.question() as question:
            dialect = question.over(lists.days_of_session(question, session))
            sums = lists.sums_of(question, dialect, Tab.SESSIONS, session, everything, 0)
            if not sums:
                return None
            turns = traces.latest_traces(question, dialect, Condition("t.session = ?", (session,)), MAX_TURNS)
            return SessionDetail(lists.session_rows(question, sums, everything, 0)[0], turns[::-1])

    def user(self, end_user: str, view: View, *, now: int) -> UserDetail | None:
        """See `TraceReader`."""
        theirs = (Filter(Field("end_user"), Operator.IS_ANY_OF, (end_user,)),)
        everything = View(Tab.USERS, theirs, ALL_TIME)
        with self._server.question() as question:
            dialect = question.dialect(everything, now)
            ever = lists.sums_of(question, dialect, Tab.USERS, end_user, everything, now)
            if not ever:
                return None
            within = lists.sums_of(question, dialect, Tab.USERS, end_user, view, now)
            (row,) = lists.user_rows(question, within or [(end_user, 0, 0, 0, 0, 0, 0, *ever[0][-2:])])
            condition = conjunction([Condition("t.end_user = ?", (end_user,)), in_period(view, now)])
            return UserDetail(
                user=replace(row, first_seen=ever[0][-2], last_seen=ever[0][-1]),
                sessions=lists.sessions_of(question, dialect, end_user, view, now, MAX_BESIDE_A_USER),
                traces=traces.latest_traces(question, dialect, condition, MAX_BESIDE_A_USER),
                buckets=observed.histogram_of(question, dialect, condition, view, now, _BUCKETS),
            )

    def sparklines(self, end_users: Sequence[str], view: View, *, now: int, buckets: int) -> dict[str, tuple[int, ...]]:
        """See `TraceReader`."""
        if not end_users:
            return {}
        with self._server.question() as question:
            dialect = question.dialect(view.with_filters(()), now)
            return observed.sparklines(question, dialect, end_users, view, now, buckets)

    def coverage(self, view: View, *, now: int) -> Coverage:
        """See `TraceReader`."""
        with self._server.question() as question:
            return coverage.coverage(question, view, now)

    def values(self, field: Field, prefix: str, view: View, *, now: int, limit: int) -> tuple[ValueCount, ...]:
        """See `TraceReader`."""
        with self._server.question() as question:
            return observed.values(question, field, prefix, view, now, limit)

    def metadata_keys(self, prefix: str, view: View, *, now: int, limit: int) -> tuple[ValueCount, ...]:
        """See `TraceReader`."""
        with self._server.question() as question:
            return observed.metadata_keys(question, prefix, view, now, limit)

    def exclusions(self, view: View, *, now: int) -> tuple[Exclusion, ...]:
        """See `TraceReader`."""
        with self._server.question() as question:
            return lists.exclusions(question, view, now)
