"""Retention: the traces that arrived first go first, a few at a time, when they are too old or the store too large.

A trace's age counts from the arrival of its first span, by this machine's clock, because clocks of senders may be
wrong. Old traces lie together in the file, so deleting them touches few pages; pages that stay free go back to the
disk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from neatlogs_processor.store.files import transaction

DAY: Final = 86_400 * 10**9

STEP_SPANS: Final = 1000
"""Spans that one step deletes unless told otherwise; at least one trace. It takes about ten milliseconds."""

_STEP_TRACES: Final = 512
_VACUUM_PAGES: Final = 128
_KEPT_FREE_BYTES: Final = 32 * 2**20


@dataclass(frozen=True)
class Limits:
    """How much is kept.

    Attributes:
        max_age: Nanoseconds; `None` keeps traces whatever their age.
        max_bytes: Bytes in use in the file, its log apart; `None` keeps whatever the disk holds.
    """

    max_age: int | None = None
    max_bytes: int | None = None


@dataclass
class Pruned:
    """What was deleted.

    Attributes:
        traces: How many traces.
        spans: How many spans they held.
        by_age: Whether they were too old (else the store was too large).
        more: Whether there is more to do.
    """

    traces: int = 0
    spans: int = 0
    by_age: bool = False
    more: bool = False


def prune(connection: sqlite3.Connection, limits: Limits, now: int, *, spans: int = STEP_SPANS) -> Pruned:
    """Take one step: delete some traces, or give some free pages back.

    Args:
        connection: Made by `files.open_writer`, not in a transaction.
        limits: How much is kept.
        now: Nanoseconds since the epoch.
        spans: How many spans to delete at most, if that leaves at least one trace.

    Raises:
        sqlite3.Error: Nothing was deleted.
    """
    goes = _too_old(connection, limits, now)
    pruned = Pruned(by_age=bool(goes))
    if not goes and limits.max_bytes is not None and bytes_used(connection) > limits.max_bytes:
        goes = connection.execute("SELECT id, spans FROM traces ORDER BY id LIMIT ?", (_STEP_TRACES,)).fetchall()
    traces: list[int] = []
    for number, held in goes:
        if traces and pruned.spans + held > spans:
            break
        traces.append(number)
        pruned.spans += held
    pruned.traces = len(traces)
    if traces:
        with transaction(connection):
            delete_traces(connection, traces)
            _delete_unused(connection, now)
        pruned.more = True
    else:
        pruned.more = give_back(connection, limits)
    return pruned


def delete_traces(connection: sqlite3.Connection, traces: Iterable[int]) -> None:
    """Delete the traces with these ids, and all that belongs to them, inside a transaction."""
    each = [(number,) for number in traces]
    run = connection.executemany
    run("DELETE FROM blocks WHERE id IN (SELECT block FROM spans WHERE trace = ?)", each)
    run("DELETE FROM spans WHERE trace = ?", each)
    run("DELETE FROM overrides WHERE trace = ?", each)
    run("DELETE FROM traces WHERE id = ?", each)


def _too_old(connection: sqlite3.Connection, limits: Limits, now: int) -> list[tuple[int, int]]:
    if limits.max_age is None:
        return []
    # By the time of arrival and not by id: a clock that once ran ahead must not keep for ever what came later.
    return connection.execute(
        "SELECT id, spans FROM traces WHERE received < ? ORDER BY received, id LIMIT ?",
        (now - limits.max_age, _STEP_TRACES),
    ).fetchall()


def bytes_used(connection: sqlite3.Connection) -> int:
    """Return how many bytes of the file are in use."""
    run = connection.execute
    pages = run("PRAGMA page_count").fetchone()[0] - run("PRAGMA freelist_count").fetchone()[0]
    return int(pages * run("PRAGMA page_size").fetchone()[0])


def give_back(connection: sqlite3.Connection, limits: Limits, *, pages: int = _VACUUM_PAGES) -> bool:
    """Give some free pages back to the disk; say whether there are more that will not be used again soon.

    Args:
        connection: As for `prune`.
        limits: A tenth of the size, at most 32 MiB, stays for what comes next.
        pages: How many pages at most.

    Raises:
        sqlite3.Error: Nothing was given back.
    """
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (page_size,) = connection.execute("PRAGMA page_size").fetchone()
    kept = _KEPT_FREE_BYTES if limits.max_bytes is None else min(_KEPT_FREE_BYTES, limits.max_bytes // 10)
    if free * page_size <= kept:
        return False
    # The statement frees one page a step, so all its steps have to be made.
    connection.execute(f"PRAGMA incremental_vacuum({int(pages)})").fetchall()
    return True


def give_back_all(connection: sqlite3.Connection) -> None:
    """Give all free pages back to the disk, in steps between which others can write."""
    while connection.execute("PRAGMA freelist_count").fetchone()[0]:
        connection.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()


def _delete_unused(connection: sqlite3.Connection, now: int) -> None:
    """Delete what no trace that is left can refer to: last used before all of them arrived.

    `last_used` is never before the arrival of a trace that uses it, except that it is exact to the hour only.
    """
    (oldest,) = connection.execute("SELECT min(received) FROM traces").fetchone()
    before = ((now if oldest is None else oldest) - DAY,)
    connection.execute("DELETE FROM resources WHERE last_used < ?", before)
    connection.execute("DELETE FROM scopes WHERE last_used < ?", before)
    connection.execute("DELETE FROM overrides WHERE trace = 0 AND received < ?", before)
