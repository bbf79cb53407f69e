"""The one thread that owns the queue's files: it runs what the event loop asks for, and commits in groups.

While the disk is busy with one commit, what arrives gathers into the next: an fsync serves every request that waits
for one. What nobody waits for (deletions, notes about failed tries) rides along with the next request, or goes alone
after a moment.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from neatlogs_processor.queue.directory import QueueDirectory
from neatlogs_processor.queue.reading import DamagedError, DamagedRowError, is_damage, is_full
from neatlogs_processor.queue.recovery import Recovery, open_or_recover
from neatlogs_processor.queue.rows import Row, Totals
from neatlogs_processor.queue.stock import DiskFullError, Stock, open_stock

T = TypeVar("T")

LAZY_SECONDS = 0.05
"""How long a deletion may wait for company. A crash in between means a second delivery, never a loss."""

LAZY_SECONDS_OF_THE_JOURNAL = 0.005
"""The same where nothing is in the database: the journal's notes cost a system call, and no fsync."""

RETRY_SECONDS = 1.0
"""How long the thread leaves a disk alone that has no room for deletions either."""

GROUP_BYTES = 64 * 2**20
GROUP_OPERATIONS = 1024
KEPT_FREE_BYTES = 64 * 2**20
"""Unused room that the file may keep while requests wait in it."""

_DELETIONS_OF_THE_RESERVE = 8


@dataclass
class _Operation:
    future: asyncio.Future[Any]
    run: Callable[[Stock], Any] = lambda _: None
    writes: bool = False
    # A request to keep, and who is told in the event loop that it was.
    row: Row | None = None
    kept: Callable[[Exception | None], None] | None = None
    # Whether it may wait for company, and for better times where the disk fails.
    lazy: bool = False


class Committer:
    """Runs operations on what the queue holds. For the event loop that made it.

    Args:
        directory: Held by this process.
        on_recovery: Called in the event loop after a damaged file was replaced, with what happened.
        max_pages: See `QueueFile`.
        segment_bytes: See `open_stock`.

    Attributes:
        recoveries: What had to be done to open the files.
        last_id: The highest id at that time.
        newest: When the newest request at that time arrived.

    Raises:
        sqlite3.Error: The disk does not let us.
        OSError: Likewise.
        DiskFullError: See `open_stock`.
    """

    def __init__(
        self,
        directory: QueueDirectory,
        *,
        on_recovery: Callable[[Recovery], None],
        max_pages: int | None,
        segment_bytes: int,
    ) -> None:
        self._directory = directory
        self._on_recovery = on_recovery
        self._max_pages = max_pages
        self._loop = asyncio.get_running_loop()
        self._stock, self.recoveries = open_stock(directory, max_pages=max_pages, segment_bytes=segment_bytes)
        self._totals = self._stock.totals
        self.last_id, self.newest = self._stock.last_id, self._stock.newest
        self._condition = threading.Condition()
        self._operations: deque[_Operation] = deque()
        self._awaited = 0
        self._closing = False
        self._shrinks = False
        self._directory.keep_reserve()
        self._thread = threading.Thread(target=self._work, name="neatlogs-queue", daemon=True)
        self._thread.start()

    @property
    def totals(self) -> Totals:
        """How much there is, as of the last commit."""
        return self._totals

    def read(self, run: Callable[[Stock], T]) -> asyncio.Future[T]:
        """Run something that does not write; the future is what it returns."""
        return self._append(_Operation(self._loop.create_future(), run))

    def keep(self, row: Row, kept: Callable[[Exception | None], None]) -> asyncio.Future[None]:
        """Put a request on the disk; the future is done when it is there.

        Args:
            row: The request.
            kept: Called in the event loop when it is there, or with the reason why it is not. Other than the future it
                is always told, also after whoever awaited the future was cancelled.

        The future fails with `DiskFullError` where there is no room, and with `sqlite3.Error` or `OSError` where the
        disk does not let us. Nothing was written then.
        """
        return self._append(_Operation(self._loop.create_future(), writes=True, row=row, kept=kept))

    def write_soon(self, run: Callable[[Stock], T]) -> asyncio.Future[T]:
        """Run something that writes and has time, inside of a transaction. Where the disk fails it is tried until it
        succeeds.

        Returns:
            A future that nobody has to await; it never fails, and is cancelled where the queue closes before.
        """
        return self._append(_Operation(self._loop.create_future(), run, writes=True, lazy=True))

    async def close(self) -> None:
        """Do what was asked for, close the files and let the directory go."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        await asyncio.to_thread(self._thread.join)

    def _append(self, operation: _Operation) -> asyncio.Future[Any]:
        with self._condition:
            if self._closing:
                raise RuntimeError("the queue is closed")
            self._operations.append(operation)
            self._awaited += not operation.lazy
            # What has time need not wake the thread again that was woken by its like.
            if not operation.lazy or len(self._operations) == 1:
                self._condition.notify()
        return operation.future

    def _work(self) -> None:
        try:
            while (group := self._next_group()) is not None:
                if group:
                    self._run(group)
                elif not self._closing:
                    self._tidy()
        finally:
            try:
                self._gather()
            finally:
                try:
                    self._stock.close()
                finally:
                    self._directory.close()

    def _next_group(self) -> list[_Operation] | None:
        """Wait for operations. None of them: there is time to tidy up. `None`: the end."""
        with self._condition:
            if not self._operations and self._shrinks and not self._closing:
                return []
            while not self._operations and not self._closing:
                self._condition.wait()
            if not self._operations:
                return None
            if not self._awaited and not self._closing:
                patience = LAZY_SECONDS if self._stock.file.totals.requests else LAZY_SECONDS_OF_THE_JOURNAL
                self._condition.wait_for(lambda: self._awaited or self._closing, patience)
            group: list[_Operation] = []
            size = 0
            while self._operations and len(group) < GROUP_OPERATIONS and size < GROUP_BYTES:
                operation = self._operations.popleft()
                self._awaited -= not operation.lazy
                size += 0 if operation.row is None else operation.row.size
                group.append(operation)
            return group

    def _run(self, group: list[_Operation]) -> None:
        outcomes = [(one, *self._read(one)) for one in group if not one.writes]
        if rows := [one for one in group if one.row is not None]:
            outcomes += self._keep(rows)
        if outcomes:
            # Whoever awaits these need not wait for the others.
            self._settle(outcomes)
        if writes := [one for one in group if one.lazy]:
            self._settle(self._write(writes))
        self._shrinks = self._shrinks or self._stock.file_changed

    def _settle(self, outcomes: list[tuple[_Operation, Any, Exception | None]]) -> None:
        self._totals = self._stock.totals
        self._loop.call_soon_threadsafe(_settle, outcomes)

    def _read(self, operation: _Operation) -> tuple[Any, Exception | None]:
        try:
            return operation.run(self._stock), None
        except DamagedRowError as error:
            # Whoever asked for it decides.
            return None, error
        except Exception as error:  # noqa: BLE001  # handed to whoever asked
            if is_damage(error) and self._recover(error):
                return self._read_again(operation)
            return None, error

    def _read_again(self, operation: _Operation) -> tuple[Any, Exception | None]:
        try:
            return operation.run(self._stock), None
        except Exception as error:  # noqa: BLE001  # handed to whoever asked
            return None, error

    def _keep(self, group: list[_Operation]) -> list[tuple[_Operation, Any, Exception | None]]:
        rows = [one.row for one in group if one.row is not None]
        kept, may_recover = 0, True
        while kept < len(rows):
            try:
                kept += self._stock.keep(rows[kept:])
            except Exception as error:  # noqa: BLE001, PERF203  # handed to whoever asked
                if may_recover and is_damage(error) and self._recover(error):
                    may_recover = False
                    continue
                reason = DiskFullError() if isinstance(error, sqlite3.Error) and is_full(error) else error
                return [(one, None, None if number < kept else reason) for number, one in enumerate(group)]
        return [(one, None, None) for one in group]

    def _write(self, group: list[_Operation]) -> list[tuple[_Operation, Any, Exception | None]]:
        try:
            return self._commit(group)
        except Exception as error:  # noqa: BLE001  # handed to whoever asked, below
            if is_damage(error) and self._recover(error):
                return self._write_again(group)
            if not isinstance(error, DiskFullError) and (not isinstance(error, sqlite3.Error) or not is_full(error)):
                return self._give_up(group, error)
        return self._write_on_full_disk(group)

    def _write_on_full_disk(self, group: list[_Operation]) -> list[tuple[_Operation, Any, Exception | None]]:
        """Use the reserve for what makes room, and take it back at once: others write to this disk, too.

        One after the other, because the reserve holds what a few deletions write.
        """
        self._directory.give_up_reserve()
        outcomes: list[tuple[_Operation, Any, Exception | None]] = []
        try:
            for number, one in enumerate(group):
                outcomes += self._commit([one])
                if number % _DELETIONS_OF_THE_RESERVE == 0:
                    # An empty log frees what was written to it. It cannot be emptied where the file would have to grow.
                    self._stock.make_room()
        except Exception as error:  # noqa: BLE001  # handed to whoever asked
            outcomes += self._give_up(group[len(outcomes) :], error)
        finally:
            self._stock.make_room()
            self._directory.keep_reserve()
        return outcomes

    def _write_again(self, group: list[_Operation]) -> list[tuple[_Operation, Any, Exception | None]]:
        try:
            return self._commit(group)
        except Exception as error:  # noqa: BLE001  # handed to whoever asked
            return self._give_up(group, error)

    def _give_up(self, group: list[_Operation], error: Exception) -> list[tuple[_Operation, Any, Exception | None]]:
        """Keep what nobody waits for for later."""
        if self._closing:
            return [(one, None, error) for one in group]
        with self._condition:
            self._operations.extendleft(reversed(group))
            self._condition.wait_for(lambda: self._closing or self._awaited, RETRY_SECONDS)
        return []

    def _commit(self, group: list[_Operation]) -> list[tuple[_Operation, Any, Exception | None]]:
        with self._stock.transaction():
            return [(one, one.run(self._stock), None) for one in group]

    def _recover(self, cause: Exception) -> bool:
        """Replace a damaged database; say whether there is a sound one now."""
        self._stock.file.close()
        try:
            if not self._directory.unrescued():
                self._directory.set_aside()
            self._stock.file, recoveries = open_or_recover(self._directory, cause=str(cause), max_pages=self._max_pages)
        except (sqlite3.Error, OSError, DamagedError):
            # No room for a copy, say. Operations fail on the closed file, and each brings another try.
            return False
        for recovery in recoveries:
            self._loop.call_soon_threadsafe(self._on_recovery, recovery)
        return True

    def _gather(self) -> None:
        """Leave one file to whoever comes next, where that is possible."""
        for may_recover in (True, False):
            try:
                self._stock.gather()
                break
            except Exception as error:  # noqa: BLE001  # the next start finds it in the journal
                if not (may_recover and is_damage(error) and self._recover(error)):
                    break

    def _tidy(self) -> None:
        """Give unused room back to the disk, a little at a time."""
        try:
            self._stock.file_changed = False
            self._shrinks = self._stock.file.shrink(KEPT_FREE_BYTES)
        except (sqlite3.Error, DamagedError):
            self._shrinks = False


def _settle(outcomes: list[tuple[_Operation, Any, Exception | None]]) -> None:
    for operation, result, error in outcomes:
        if operation.kept is not None:
            operation.kept(error)
        future = operation.future
        if future.cancelled():
            continue
        if error is not None and operation.lazy:
            future.cancel()
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
