"""The one thread that owns the queue's file: it runs what the event loop asks for, and commits in groups.

While the disk is busy with one commit, what arrives gathers into the next: an fsync serves every request that waits
for one. What nobody waits for (deletions, notes about failed tries) rides along with the next request, or goes alone
after a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from neatlogs_processor.queue.directory import QueueDirectory
from neatlogs_processor.queue.file import QueueFile
from neatlogs_processor.queue.reading import DamagedError, DamagedRowError, is_damage, is_full
from neatlogs_processor.queue.recovery import Recovery, open_or_recover
from neatlogs_processor.queue.rows import Totals

T = TypeVar("T")

LAZY_SECONDS = 0.05
"""How long a deletion may wait for company. A crash in between means a second delivery, never a loss."""

RETRY_SECONDS = 1.0
"""How long the thread leaves a disk alone that has no room for deletions either."""

GROUP_BYTES = 64 * 2**20
GROUP_OPERATIONS = 1024
KEPT_FREE_BYTES = 64 * 2**20
"""Unused room that the file may keep while requests wait in it."""


class DiskFullError(Exception):
    """There is no room for another request; nothing of it was kept."""


@dataclass
class _Operation:
    run: Callable[[QueueFile], Any]
    future: asyncio.Future[Any]
    writes: bool
    # How much it adds to the file.
    grows: int = 0
    # Whether it may wait for company, and for better times where the disk fails.
    lazy: bool = False


class Committer:
    """Runs operations on the queue's file. For the event loop that made it.

    Args:
        directory: Held by this process.
        on_recovery: Called in the event loop after a damaged file was replaced, with what happened.
        max_pages: See `QueueFile`.

    Attributes:
        recoveries: What had to be done to open the file.
        last_id: The highest id at that time.
        newest: When the newest request at that time arrived.

    Raises:
        sqlite3.Error: The disk does not let us.
    """

    def __init__(
        self,
        directory: QueueDirectory,
        *,
        on_recovery: Callable[[Recovery], None],
        max_pages: int | None = None,
    ) -> None:
        self._directory = directory
        self._on_recovery = on_recovery
        self._max_pages = max_pages
        self._loop = asyncio.get_running_loop()
        self._file, self.recoveries = open_or_recover(directory, max_pages=max_pages)
        self._totals = self._file.totals
        self.last_id, self.newest = self._file.last_id, self._file.newest
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
        """How much the file holds, as of the last commit."""
        return self._totals

    def read(self, run: Callable[[QueueFile], T]) -> asyncio.Future[T]:
        """Run something that does not write; the future is what it returns."""
        return self._append(_Operation(run, self._loop.create_future(), writes=False))

    def write(self, run: Callable[[QueueFile], T], *, grows: int = 0) -> asyncio.Future[T]:
        """Run something that writes; the future is what it returns, after its transaction is on the disk.

        Args:
            run: What to do. It may run more than once.
            grows: How many bytes it adds; 0 for what can be done on a full disk.

        The future fails with `DiskFullError` where something that grows finds no room, and with `sqlite3.Error` where
        the disk does not let us. Nothing was written then.
        """
        return self._append(_Operation(run, self._loop.create_future(), writes=True, grows=grows))

    def write_soon(self, run: Callable[[QueueFile], T]) -> asyncio.Future[T]:
        """Run something that writes, adds nothing and has time. Where the disk fails it is tried until it succeeds.

        Returns:
            A future that nobody has to await; it never fails, and is cancelled where the queue closes before.
        """
        return self._append(_Operation(run, self._loop.create_future(), writes=True, lazy=True))

    async def close(self) -> None:
        """Do what was asked for, close the file and let the directory go."""
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
                self._file.close()
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
                self._condition.wait_for(lambda: self._awaited or self._closing, LAZY_SECONDS)
            group: list[_Operation] = []
            size = 0
            while self._operations and len(group) < GROUP_OPERATIONS and size < GROUP_BYTES:
                operation = self._operations.popleft()
                self._awaited -= not operation.lazy
                size += operation.grows
                group.append(operation)
            return group

    def _run(self, group: list[_Operation]) -> None:
        outcomes = [(one, *self._read(one)) for one in group if not one.writes]
        writes = [one for one in group if one.writes]
        if writes:
            outcomes += self._write(writes)
            self._shrinks = True
        self._totals = self._file.totals
        self._loop.call_soon_threadsafe(_settle, outcomes)

    def _read(self, operation: _Operation) -> tuple[Any, Exception | None]:
        try:
            return operation.run(self._file), None
        except DamagedRowError as error:
            # Whoever asked for it decides.
            return None, error
        except Exception as error:  # noqa: BLE001  # handed to whoever asked
            if is_damage(error) and self._recover(error):
                return self._read_again(operation)
            return None, error

    def _read_again(self, operation: _Operation) -> tuple[Any, Exception | None]:
        try:
            return operation.run(self._file), None
        except Exception as error:  # noqa: BLE001  # handed to whoever asked
            return None, error

    def _write(self, group: list[_Operation]) -> list[tuple[_Operation, Any, Exception | None]]:
        growing = [one for one in group if one.grows]
        rest = [one for one in group if not one.grows]
        if not growing or self._has_room(sum(one.grows for one in growing)):
            try:
                return self._commit(group)
            except Exception as error:  # noqa: BLE001  # handed to whoever asked, below
                if is_damage(error) and self._recover(error):
                    return self._write_again(group)
                if not isinstance(error, sqlite3.Error) or not is_full(error):
                    return self._give_up(group, error)
        refused = [(one, None, DiskFullError()) for one in growing]
        return [*refused, *(self._write_on_full_disk(rest) if rest else [])]

    def _has_room(self, size: int) -> bool:
        # Requests are accepted only while there is room for deletions as well.
        if not self._directory.has_room(size):
            # Unused pages and a log that was moved into the file are room, too.
            with contextlib.suppress(sqlite3.Error):
                self._file.shrink(0)
                self._file.checkpoint()
        return self._directory.has_room(size) and self._directory.keep_reserve()

    def _write_on_full_disk(self, group: list[_Operation]) -> list[tuple[_Operation, Any, Exception | None]]:
        """Use the reserve for what makes room, and take it back at once: others write to this disk, too."""
        self._directory.give_up_reserve()
        try:
            outcomes = self._write_again(group)
            # An empty log frees what was written to it. It cannot be emptied where the file would have to grow.
            with contextlib.suppress(sqlite3.Error):
                self._file.checkpoint()
        finally:
            self._directory.keep_reserve()
        return outcomes

    def _write_again(self, group: list[_Operation]) -> list[tuple[_Operation, Any, Exception | None]]:
        try:
            return self._commit(group)
        except Exception as error:  # noqa: BLE001  # handed to whoever asked
            return self._give_up(group, error)

    def _give_up(self, group: list[_Operation], error: Exception) -> list[tuple[_Operation, Any, Exception | None]]:
        """Refuse what somebody waits for, and keep the rest for later."""
        later = [one for one in group if one.lazy]
        if later and not self._closing:
            with self._condition:
                self._operations.extendleft(reversed(later))
                self._condition.wait_for(lambda: self._closing, RETRY_SECONDS)
            group = [one for one in group if not one.lazy]
        return [(one, None, error) for one in group]

    def _commit(self, group: list[_Operation]) -> list[tuple[_Operation, Any, Exception | None]]:
        with self._file.transaction():
            return [(one, one.run(self._file), None) for one in group]

    def _recover(self, cause: Exception) -> bool:
        """Replace a damaged file; say whether there is a sound one now."""
        self._file.close()
        try:
            if not self._directory.unrescued():
                self._directory.set_aside()
            self._file, recoveries = open_or_recover(self._directory, cause=str(cause), max_pages=self._max_pages)
        except (sqlite3.Error, OSError, DamagedError):
            # No room for a copy, say. Operations fail on the closed file, and each brings another try.
            return False
        for recovery in recoveries:
            self._loop.call_soon_threadsafe(self._on_recovery, recovery)
        return True

    def _tidy(self) -> None:
        """Give unused room back to the disk, a little at a time."""
        try:
            self._shrinks = self._file.shrink(KEPT_FREE_BYTES)
        except (sqlite3.Error, DamagedError):
            self._shrinks = False


def _settle(outcomes: list[tuple[_Operation, Any, Exception | None]]) -> None:
    for operation, result, error in outcomes:
        future = operation.future
        if future.cancelled():
            continue
        if error is not None and operation.lazy:
            future.cancel()
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
