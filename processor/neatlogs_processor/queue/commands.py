"""What `neatlogs-processor queue` does: look into a queue, bring dead letters back, throw away.

Looking works beside a running processor. Changing does not: whoever holds the directory is named, and nothing is done.
"""

from __future__ import annotations

import heapq
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from neatlogs_processor.core.text import shown
from neatlogs_processor.errors import ConfigError, ProcessorError
from neatlogs_processor.queue.directory import QueueDirectory, database_in, journal_in
from neatlogs_processor.queue.file import QueueFile
from neatlogs_processor.queue.journal import look_at
from neatlogs_processor.queue.reading import DamagedError, look
from neatlogs_processor.queue.rows import Entry, Row, Totals
from neatlogs_processor.queue.stock import DiskFullError, open_stock


def list_queue(path: Path, out: TextIO, *, now: float | None = None) -> None:
    """Print what waits and what is dead, one request a line, oldest first.

    Args:
        path: The directory.
        out: Where the lines go.
        now: Seconds since the epoch; the wall clock's unless given.

    Raises:
        ConfigError: There is no queue.
        ProcessorError: The file cannot be read.
    """
    database = database_in(path)
    if not database.is_file():
        raise ConfigError(f"--queue-dir: there is no queue in {path}")
    moment = time.time() if now is None else now
    try:
        with look(database) as file:
            out.write(f"{'id':>10}  {'signal':8}{'bytes':>12}  {'age':>10}{'attempts':>10}  state   last error\n")
            # The journal first: what moves from there into the database meanwhile is seen twice rather than never.
            newest = look_at(journal_in(path))
            totals = Totals()
            for entry in _merged(file.everything(dead=False), newest):
                out.write(f"{_line(entry, 'waiting', moment)}\n")
                totals = totals.plus(1, entry.size, dead=False)
            for entry in file.everything(dead=True):
                out.write(f"{_line(entry, 'dead', moment)}\n")
                totals = totals.plus(1, entry.size, dead=True)
    except (sqlite3.Error, OSError, DamagedError) as error:
        raise ProcessorError(f"the queue in {path} cannot be read ({error})") from None
    out.write(
        f"{totals.requests} waiting ({totals.size} bytes), {totals.dead_requests} dead ({totals.dead_size} bytes)\n"
    )
    for folder in sorted(path.glob("corrupt-*")):
        out.write(f"{folder} holds a damaged file that was set aside\n")


def replay(path: Path, ids: Iterable[int], out: TextIO) -> None:
    """Put dead letters at the end of the queue; the next start delivers them.

    Args:
        path: The directory.
        ids: Which; all of them where there are none. A request that cannot be read any more stays where it is.
        out: Where the result is said.

    Raises:
        ConfigError: There is no queue, or a running processor holds it.
        ProcessorError: The file cannot be used, or an id is not that of a dead letter.
    """
    with _Held(path) as file:
        chosen = _choose(file.everything(dead=True), ids, "dead letter")
        damaged = []
        moment = max(time.time(), file.newest or 0.0)
        number = file.last_id
        for entry in chosen:
            try:
                row = file.row(entry.id)
            except DamagedError:
                damaged.append(entry.id)
                continue
            if row is not None:
                number += 1
                with file.transaction():
                    file.revive(entry.id, Row(number, row.signal, moment, row.spans, row.body, row.findings))
    out.write(f"{len(chosen) - len(damaged)} dead letters wait for delivery again\n")
    if damaged:
        out.write(f"{len(damaged)} cannot be read any more: {', '.join(map(str, damaged))}\n")


def purge(path: Path, ids: Iterable[int], out: TextIO, *, waiting: bool) -> None:
    """Delete dead letters, or with `waiting` requests that were acknowledged and not delivered yet.

    Args:
        path: The directory.
        ids: Which; all of them where there are none.
        out: Where the result is said.
        waiting: Delete what waits instead of what is dead.

    Raises:
        ConfigError: There is no queue, or a running processor holds it.
        ProcessorError: The file cannot be used, or an id is not one of those.
    """
    what = "waiting request" if waiting else "dead letter"
    with _Held(path) as file:
        chosen = [entry.id for entry in _choose(file.everything(dead=not waiting), ids, what)]
        with file.transaction():
            file.delete(chosen)
        while file.shrink(0):
            pass
    out.write(f"{len(chosen)} {what}s deleted\n")


class _Held:
    """The file, while nobody else may write to it."""

    def __init__(self, path: Path) -> None:
        if not database_in(path).is_file():
            raise ConfigError(f"--queue-dir: there is no queue in {path}")
        self._path = path

    def __enter__(self) -> QueueFile:
        self._directory = QueueDirectory(self._path)
        try:
            # Everything is in the database then.
            self._stock, _ = open_stock(self._directory, segment_bytes=0)
        except (sqlite3.Error, OSError, DamagedError, DiskFullError) as error:
            self._directory.close()
            raise ProcessorError(f"the queue in {self._path} cannot be opened ({error})") from None
        return self._stock.file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        self._stock.close()
        self._directory.close()
        if isinstance(error, sqlite3.Error):
            raise ProcessorError(f"the queue in {self._path} cannot be changed ({error})") from None


def _merged(older: Iterable[Entry], newest: Iterable[Entry]) -> Iterator[Entry]:
    """Return entries by id, each once."""
    last = None
    for entry in heapq.merge(older, newest, key=lambda entry: entry.id):
        if entry.id != last:
            yield entry
        last = entry.id


def _choose(entries: Iterable[Entry], ids: Iterable[int], what: str) -> list[Entry]:
    known = {entry.id: entry for entry in entries}
    wanted = list(dict.fromkeys(ids)) or list(known)
    missing = [row_id for row_id in wanted if row_id not in known]
    if missing:
        raise ProcessorError(f"{missing[0]} is not the id of a {what}; neatlogs-processor queue ls shows them")
    return [known[row_id] for row_id in wanted]


def _line(entry: Entry, state: str, now: float) -> str:
    # A clock that was set back must not make a request come from the future.
    age = max(0.0, now - entry.received)
    error = shown(entry.error, limit=200)
    line = (
        f"{entry.id:>10}  {entry.signal.value:8}{entry.size:>12}  {_age(age):>10}{entry.attempts:>10}  {state:8}{error}"
    )
    return line.rstrip()


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f}s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f}m"
    return f"{seconds / 3600:.0f}h"
