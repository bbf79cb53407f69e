"""`TraceReader` over a store's file. A question is answered from one moment: what is written meanwhile is not seen."""

from __future__ import annotations

import contextlib
import json
import queue
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from neatlogs_processor.errors import StoreUnavailableError
from neatlogs_processor.query.dialect import Condition, conjunction
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
from neatlogs_processor.query.view import ALL_TIME, Tab, View
from neatlogs_processor.store import coverage, details, lists, observed
from neatlogs_processor.store.files import beside, open_reader
from neatlogs_processor.store.places import GAP_SECONDS, Places
from neatlogs_processor.store.selecting import in_period

MAX_TURNS: Final = 1000
"""How many traces of a session are listed."""
MAX_BESIDE_A_USER: Final = 50
"""How many sessions and traces stand on an end user's page."""
_BUCKETS: Final = 60
ANSWER_SECONDS: Final = 10.0
"""How long a question may take. What is read meanwhile cannot leave the log, so that has to end."""
AT_ONCE: Final = 6
"""How many questions are answered at once; each has a cache of its own."""
_IDLE_CONNECTIONS: Final = 4
_STEPS: Final = 1_000_000
"""How many instructions of SQLite pass between two looks at the clock: some ten milliseconds."""

_File = tuple[int, int] | None


def _file(path: Path) -> _File:
    """Return what tells a file from another one in its place."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class SqliteReader:
    """Answers questions about the store at a path, from any thread. Implements `query.reader.TraceReader`.

    Args:
        path: The store's file. Another process may write it.
        patience: Seconds that one question may take, and wait for others to be answered.

    Raises:
        ConfigError: From every method: there is no store, or it cannot be used.
        StoreUnavailableError: From every method: it cannot be read now, or not in time.
        QueryError: From the lists: the view's cursor is none of this list.
    """

    def __init__(self, path: Path, *, patience: float = ANSWER_SECONDS) -> None:
        self._path = path
        self._patience = patience
        # Each with the file that it reads, which may be another one by now.
        self._idle: queue.LifoQueue[tuple[sqlite3.Connection, _File]] = queue.LifoQueue(_IDLE_CONNECTIONS)
        self._places = Places(AT_ONCE, patience=max(patience, GAP_SECONDS), log_size=self._log_size)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait()[0].close()

    @contextlib.contextmanager
    def _moment(self) -> Iterator[sqlite3.Connection]:
        with self._places.one(), self._question() as connection:
            yield connection

    @contextlib.contextmanager
    def _question(self) -> Iterator[sqlite3.Connection]:
        connection, file = self._connection()
        end = time.monotonic() + self._patience
        try:
            connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
            connection.execute("BEGIN")
            yield connection
            connection.execute("ROLLBACK")
            connection.set_progress_handler(None, 0)
            self._idle.put_nowait((connection, file))
        except queue.Full:
            connection.close()
        except sqlite3.Error as error:
            connection.close()
            if str(error) == "interrupted":
                cause = f"this takes longer than {self._patience:g} s; ask for a shorter period or with fewer filters"
            else:
                cause = f"the store could not be read: {error}"
            raise StoreUnavailableError(cause, retry_after=1.0) from None
        except (DecodeError, json.JSONDecodeError) as error:
            # SQLite has no checksums: damage inside a row looks like any other value to it.
            connection.close()
            raise _damaged(error) from None
        except BaseException:
            connection.close()
            raise

    def _log_size(self) -> int:
        try:
            return beside(self._path, "wal").stat().st_size
        except OSError:
            return 0

    def _connection(self) -> tuple[sqlite3.Connection, _File]:
        file = _file(self._path)
        with contextlib.suppress(queue.Empty):
            while True:
                connection, its = self._idle.get_nowait()
                if its == file:
                    return connection, its
                # The store was removed or replaced: what it held then is not there any more.
                connection.close()
        return open_reader(self._path), file

    def traces(self, view: View, *, now: int) -> Page[TraceRow]:
        """See `TraceReader`."""
        with self._moment() as connection:
            return lists.traces(connection, replace_tab(view, Tab.TRACES), now)

    def sessions(self, view: View, *, now: int) -> Page[SessionRow]:
        """See `TraceReader`."""
        with self._moment() as connection:
            return lists.sessions(connection, replace_tab(view, Tab.SESSIONS), now)

    def users(self, view: View, *, now: int) -> Page[UserRow]:
        """See `TraceReader`."""
        with self._moment() as connection:
            return lists.users(connection, replace_tab(view, Tab.USERS), now)

    def summary(self, view: View, *, now: int) -> Summary:
        """See `TraceReader`."""
        with self._moment() as connection:
            return lists.summary(connection, view, now)

    def histogram(self, view: View, *, now: int, buckets: int) -> tuple[Bucket, ...]:
        """See `TraceReader`."""
        with self._moment() as connection:
            return observed.histogram(connection, view, now, buckets)

    def newer(self, view: View, *, now: int, than: str) -> int:
        """See `TraceReader`."""
        with self._moment() as connection:
            return lists.newer(connection, replace_tab(view, Tab.TRACES), now, than)

    def neighbours(self, view: View, trace_id: str, *, now: int) -> Neighbours:
        """See `TraceReader`."""
        with self._moment() as connection:
            return lists.neighbours(connection, replace_tab(view, Tab.TRACES), trace_id, now)

    def trace(self, trace_id: str) -> TraceDetail | None:
        """See `TraceReader`."""
        with self._moment() as connection:
            try:
                return details.trace(connection, trace_id)
            except (ValueError, LookupError) as error:
                raise _damaged(error) from None

    def session(self, session: str) -> SessionDetail | None:
        """See `TraceReader`."""
        everything = View(Tab.SESSIONS, period=ALL_TIME)
        with self._moment() as connection:
            sums = lists.sums_of(connection, Tab.SESSIONS, session, everything, 0)
            if not sums:
                return None
            condition = Condition("t.session = ?", (session,))
            turns = lists.some_traces(connection, condition, "t.start DESC, t.id DESC", MAX_TURNS)
            return SessionDetail(lists.session_rows(connection, sums, everything, 0)[0], turns[::-1])

    def user(self, end_user: str, view: View, *, now: int) -> UserDetail | None:
        """See `TraceReader`."""
        with self._moment() as connection:
            ever = lists.sums_of(connection, Tab.USERS, end_user, View(Tab.USERS, period=ALL_TIME), now)
            if not ever:
                return None
            within = lists.sums_of(connection, Tab.USERS, end_user, view, now)
            (row,) = lists.user_rows(connection, within or [(end_user, 0, 0, 0, 0, 0, 0, *ever[0][-2:])])
            condition = conjunction([Condition("t.end_user = ?", (end_user,)), in_period(view, now)])
            return UserDetail(
                user=replace(row, first_seen=ever[0][-2], last_seen=ever[0][-1]),
                sessions=lists.sessions_of(connection, end_user, view, now, MAX_BESIDE_A_USER),
                traces=lists.some_traces(connection, condition, "t.start DESC, t.id DESC", MAX_BESIDE_A_USER),
                buckets=observed.histogram(connection, view, now, _BUCKETS, end_user=end_user),
            )

    def sparklines(self, end_users: Sequence[str], view: View, *, now: int, buckets: int) -> dict[str, tuple[int, ...]]:
        """See `TraceReader`."""
        with self._moment() as connection:
            return observed.sparklines(connection, end_users, view, now, buckets)

    def coverage(self, view: View, *, now: int) -> Coverage:
        """See `TraceReader`."""
        with self._moment() as connection:
            return coverage.coverage(connection, view, now)

    def values(self, field: Field, prefix: str, view: View, *, now: int, limit: int) -> tuple[ValueCount, ...]:
        """See `TraceReader`."""
        with self._moment() as connection:
            return observed.values(connection, field, prefix, view, now, limit)

    def metadata_keys(self, prefix: str, view: View, *, now: int, limit: int) -> tuple[ValueCount, ...]:
        """See `TraceReader`."""
        with self._moment() as connection:
            return observed.metadata_keys(connection, prefix, view, now, limit)

    def exclusions(self, view: View, *, now: int) -> tuple[Exclusion, ...]:
        """See `TraceReader`."""
        with self._moment() as connection:
            return lists.exclusions(connection, view, now)


def _damaged(error: Exception) -> StoreUnavailableError:
    return StoreUnavailableError(f"the store holds what was asked for damaged: {error}", retry_after=1.0)


def replace_tab(view: View, tab: Tab) -> View:
    """Return the view as one of this tab: as it is, or with its filters and period alone."""
    return view if view.tab is tab else view.on(tab)
