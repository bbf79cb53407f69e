"""Everything that the queue holds: the newest requests in the journal, the others in the database."""

from __future__ import annotations

import collections
import contextlib
import errno
import itertools
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from neatlogs_processor.core.policy import Enforced
from neatlogs_processor.core.request import Signal
from neatlogs_processor.queue.directory import QueueDirectory
from neatlogs_processor.queue.file import QueueFile
from neatlogs_processor.queue.journal import SEGMENT_BYTES, Journal
from neatlogs_processor.queue.reading import content_of
from neatlogs_processor.queue.recovery import Recovery, open_or_recover
from neatlogs_processor.queue.rows import Entry, Loss, Row, Totals

_MOVED_AT_ONCE = 16 * 2**20

_LEAST_SEGMENT = 2**20
_SHARE_OF_ROOM = 16


class DiskFullError(Exception):
    """There is no room for another request; nothing of it was kept."""


class Stock:
    """The requests of one directory. For one thread.

    Args:
        directory: Held by this process.
        file: The database.
        journal: The journal; `None` where everything goes into the database.

    Attributes:
        file: The database. It may be replaced by another after damage.
        file_changed: Whether anything was written to it. Whoever tidies it up takes that back.
    """

    def __init__(self, directory: QueueDirectory, file: QueueFile, journal: Journal | None) -> None:
        self.file = file
        self.file_changed = True
        self._directory = directory
        self._journal = journal
        self._leaving: list[int] = []
        self._stack = contextlib.ExitStack()
        self._begun = False

    @property
    def totals(self) -> Totals:
        """How much there is; as of the last transaction, outside of one."""
        if self._journal is None:
            return self.file.totals
        return self.file.totals.plus(len(self._journal), self._journal.size, dead=False)

    @property
    def last_id(self) -> int:
        """The highest id there was when this was opened; 0 where there was none.

        No later request may have one of these: what the journal says of them is still in its files.
        """
        return max(self.file.last_id, 0 if self._journal is None else self._journal.last_id)

    @property
    def newest(self) -> float | None:
        """When the newest request there was then arrived."""
        times = [entry.received for entry in self._entries()]
        return max((*times, *([] if self.file.newest is None else [self.file.newest])), default=None)

    # What only reads.

    def waiting(self, signal: Signal, *, after: int, limit: int) -> list[Entry]:
        """See `QueueReader.waiting`."""
        found = self.file.waiting(signal, after=after, limit=limit)
        newer = (entry.copy() for entry in self._entries() if entry.id > after and entry.signal is signal)
        found += itertools.islice(newer, limit)
        # A large request goes into the database and may be newer than what is in the journal.
        found.sort(key=lambda entry: entry.id)
        return found[:limit]

    def older(self, before: float, *, limit: int) -> list[Entry]:
        """See `QueueReader.older`."""
        found = self.file.older(before, limit=limit)
        found += itertools.takewhile(lambda entry: entry.received < before, self._entries())
        return [entry.copy() for entry in found[:limit]]

    def body(self, row_id: int) -> tuple[bytes, Enforced | None] | None:
        """See `QueueReader.body`."""
        if self._journal is not None and row_id in self._journal:
            return content_of(self._journal.row(row_id))
        return self.file.body(row_id)

    # What writes.

    def keep(self, rows: Sequence[Row]) -> int:
        """Put requests on the disk.

        Returns:
            How many of them, at least one.

        Raises:
            DiskFullError: None, because there is no room for them.
            sqlite3.Error: None, because the disk fails.
            OSError: Likewise.
        """
        journal = self._journal
        if journal is None:
            return self._keep_in_file(rows)
        if not journal.takes(rows[0]):
            return self._keep_in_file(list(itertools.takewhile(lambda row: not journal.takes(row), rows)))
        fitting = list(itertools.takewhile(journal.takes, rows))
        try:
            kept = journal.keep(fitting, self._has_room)
            if not kept:
                self._move(journal, journal.in_the_way())
                kept = journal.keep(fitting, self._has_room)
        except OSError as error:
            raise _explained(error) from None
        return kept

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Make what happens inside durable in the database when the block ends, all of it or nothing.

        Of the journal requests leave only then. That is written down without waiting for the disk.
        """
        self._leaving.clear()
        self._begun = False
        with contextlib.ExitStack() as self._stack:
            yield
        self._forget(self._leaving)

    def delete(self, ids: Iterable[int]) -> None:
        """Forget requests; ids that are not there are ignored. Inside of a transaction."""
        here: list[int] = []
        for row_id in ids:
            (self._leaving if self._journal is not None and row_id in self._journal else here).append(row_id)
        if here:
            self._database().delete(here)

    def note(self, row_id: int, attempts: int, error: str) -> None:
        """Write down that a try failed. Inside of a transaction."""
        if self._journal is not None and row_id in self._journal:
            self._journal.failed(row_id, attempts, error)
        else:
            self._database().note(row_id, attempts, error)

    def bury(self, row_id: int, attempts: int, error: str, *, max_bytes: int) -> Loss:
        """Make a waiting request a dead letter and return the older ones that had to go. Inside of a transaction.

        Raises:
            DiskFullError: The request is in the journal, and there is no room for it in the database.
        """
        file = self._database()
        if self._journal is not None and row_id in self._journal:
            row = self._journal.unchecked(row_id)
            if not self._has_room(2 * row.size):
                raise DiskFullError
            file.insert(row)
            self._leaving.append(row_id)
        file.note(row_id, attempts, error)
        file.bury(row_id)
        return file.bound_dead(max_bytes)

    def gather(self) -> None:
        """Move all that the journal holds into the database.

        Raises:
            DiskFullError: There is no room for it. Some may have moved.
            sqlite3.Error: The disk fails.
            OSError: Likewise.
        """
        try:
            if self._journal is not None:
                self._move(self._journal, [entry.id for entry in self._journal.entries])
        except OSError as error:
            raise _explained(error) from None

    def close(self) -> None:
        """Close everything. The journal's files stay only where they hold something."""
        try:
            self.file.close()
        finally:
            if self._journal is not None:
                self._journal.close()
                if not len(self._journal):
                    self._journal.remove()

    def make_room(self) -> None:
        """Give unused room back to the disk."""
        if self._journal is not None:
            with contextlib.suppress(OSError):
                self._journal.make_room()
        # Unused pages and a log that was moved into the file are room, too.
        with contextlib.suppress(sqlite3.Error):
            self.file.shrink(0)
            self.file.checkpoint()

    def _entries(self) -> Iterator[Entry]:
        return iter(()) if self._journal is None else self._journal.entries

    def _database(self) -> QueueFile:
        """Return the database, inside of a transaction of its own: most of what happens concerns the journal alone."""
        if not self._begun:
            self._stack.enter_context(self.file.transaction())
            self._begun = self.file_changed = True
        return self.file

    def _keep_in_file(self, rows: Sequence[Row]) -> int:
        # They are written twice, to the log and then to the file.
        if not self._has_room(2 * sum(row.size for row in rows)):
            raise DiskFullError
        self.file_changed = True
        with self.file.transaction():
            for row in rows:
                self.file.insert(row)
        return len(rows)

    def _move(self, journal: Journal, ids: Sequence[int]) -> None:
        """Move requests from the journal into the database, which may be interrupted."""
        left = collections.deque(ids)
        while left:
            some: list[Entry] = []
            size = 0
            while left and size < _MOVED_AT_ONCE:
                some.append(journal.entry(left.popleft()))
                size += some[-1].size
            if not self._has_room(2 * size):
                raise DiskFullError
            self.file_changed = True
            with self.file.transaction():
                for entry in some:
                    row = journal.unchecked(entry.id)
                    self.file.insert(row, attempts=entry.attempts, error=entry.error)
            self._forget(entry.id for entry in some)
            # Others may fill the disk in the next moment, and a log that cannot be moved into the file could only grow.
            with contextlib.suppress(sqlite3.Error):
                self.file.checkpoint()

    def _forget(self, ids: Iterable[int]) -> None:
        if self._journal is not None:
            self._journal.forget(ids)
            # Where the disk fails now, it is written with what comes next.
            with contextlib.suppress(OSError):
                self._journal.write_notes()

    def _has_room(self, size: int) -> bool:
        # Requests are accepted only while there is room for deletions as well.
        if not self._directory.has_room(size):
            self.make_room()
        return self._directory.has_room(size) and self._directory.keep_reserve()


def open_stock(
    directory: QueueDirectory, *, max_pages: int | None = None, segment_bytes: int = SEGMENT_BYTES
) -> tuple[Stock, list[Recovery]]:
    """Open what a directory holds; see `open_or_recover`. A damaged journal is set aside, and its sound requests go on.

    Args:
        directory: Held by this process, which has no file of it open.
        max_pages: See `QueueFile`.
        segment_bytes: See `Journal`; 0 does without one.

    Raises:
        sqlite3.Error: The disk does not let us.
        OSError: Likewise.
        DiskFullError: There is a journal, there is to be none, and the database has no room for what it holds.
    """
    file, recoveries = open_or_recover(directory, max_pages=max_pages)
    try:
        if not segment_bytes and not any(path.exists() for path in directory.journal):
            return Stock(directory, file, None), recoveries
        # A small disk is not to be taken up by what is only on its way.
        segment_bytes = min(segment_bytes, max(_LEAST_SEGMENT, directory.room() // _SHARE_OF_ROOM))
        journal = Journal(directory.journal, segment_bytes=segment_bytes or SEGMENT_BYTES)
    except BaseException:
        file.close()
        raise
    # A processor that was killed while requests moved.
    journal.forget([entry.id for entry in journal.entries if file.has(entry.id)])
    stock = Stock(directory, file, journal)
    try:
        if journal.damaged:
            recoveries.append(_set_aside(directory, journal))
        if journal.damaged or not segment_bytes:
            with contextlib.suppress(*(() if not segment_bytes else (DiskFullError,))):
                stock.gather()
                journal.close()
                journal.remove()
                fresh = Journal(directory.journal, segment_bytes=segment_bytes) if segment_bytes else None
                stock = Stock(directory, file, fresh)
    except BaseException:
        stock.close()
        raise
    return stock, recoveries


def _set_aside(directory: QueueDirectory, journal: Journal) -> Recovery:
    """Keep a copy of a damaged journal for whoever wants to look."""
    folder = directory.new_folder("corrupt")
    for path in directory.journal:
        # Without room for a copy there is none.
        with contextlib.suppress(OSError):
            shutil.copyfile(path, folder / path.name)
    return Recovery("the journal is not what was written", folder, len(journal), journal.damaged)


def _explained(error: OSError) -> Exception:
    return DiskFullError() if error.errno in (errno.ENOSPC, errno.EDQUOT) else error
