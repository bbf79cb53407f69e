"""The one thread that owns the file of held spans, and commits in groups.

While the disk is busy with one commit, what arrives gathers into the next: an fsync serves every request that waits for
one. What nobody waits for rides along with the next request, or goes alone after a moment: deletions, which are tried
until they succeed, and roots, which are given up where the disk fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from neatlogs_processor.holding.file import DamagedError, HoldingFile, Salvage, is_damage, is_full, open_or_salvage
from neatlogs_processor.holding.rows import Fragment, Held, Root

LAZY_SECONDS: Final = 0.05
"""How long a deletion may wait for company. A crash in between means a second delivery, never a loss."""

RETRY_SECONDS: Final = 1.0
"""How long the thread leaves a disk alone that does not even take deletions."""

_GROUP_BYTES: Final = 64 * 2**20
_SHRINK_PAGES: Final = 256
"""How many unused pages are given back at once where the disk has no room: the log grows by as much before."""
_SPARE_BYTES: Final = 32 * 2**20
"""What has to be free on the disk beside the fragments: for deletions, and for the queue, through which they leave."""


class DiskFullError(Exception):
    """There is no room for fragments; nothing of the request was kept."""


class _Insertion(NamedTuple):
    fragments: Sequence[Fragment]
    roots: Sequence[Root]
    future: asyncio.Future[None]

    @property
    def size(self) -> int:
        return sum(one.held.size for one in self.fragments)


class _Question(NamedTuple):
    run: Callable[[HoldingFile], Any]
    future: asyncio.Future[Any]


class HoldingWriter:
    """Keeps fragments and roots. For the event loop that made it.

    Args:
        path: The file; whoever makes this holds its directory.
        on_salvage: Called in the event loop after a damaged file was replaced, with what happened.
        max_pages: See `HoldingFile`.

    Raises:
        sqlite3.Error: The disk does not let us.
        OSError: Likewise.
    """

    def __init__(self, path: Path, *, on_salvage: Callable[[Salvage], None], max_pages: int | None = None) -> None:
        self._path = path
        self._on_salvage = on_salvage
        self._max_pages = max_pages
        self._loop = asyncio.get_running_loop()
        self._file, self.salvaged = open_or_salvage(path, max_pages=max_pages)
        self._condition = threading.Condition()
        self._insertions: deque[_Insertion] = deque()
        self._questions: deque[_Question] = deque()
        self._deletions: list[int] = []
        # The last word about each trace: its root, or that it is to be forgotten.
        self._roots: dict[bytes, Root | None] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="neatlogs-holding", daemon=True)
        self._thread.start()

    def insert(self, fragments: Sequence[Fragment], roots: Sequence[Root]) -> asyncio.Future[None]:
        """Keep fragments and roots; the future is done when they are on the disk.

        It fails with `DiskFullError` where there is no room, and with `sqlite3.Error` where the disk does not let us.
        Nothing was written then.
        """
        insertion = _Insertion(fragments, roots, self._loop.create_future())
        with self._condition:
            if self._closing:
                raise RuntimeError("the file of held spans is closed")
            self._insertions.append(insertion)
            self._condition.notify()
        return insertion.future

    def bodies(self, fragments: Sequence[Held]) -> asyncio.Future[list[bytes | None]]:
        """Read the spans of fragments; `None` where they are not what was written. It fails with `sqlite3.Error`."""
        future: asyncio.Future[list[bytes | None]] = self._loop.create_future()
        with self._condition:
            self._questions.append(_Question(lambda file: [file.body(one) for one in fragments], future))
            self._condition.notify()
        return future

    def delete(self, ids: Iterable[int]) -> None:
        """Forget fragments, soon."""
        with self._condition:
            self._deletions.extend(ids)
            self._condition.notify()

    def remember(self, roots: Iterable[Root]) -> None:
        """Keep roots, soon, and if the disk has room."""
        with self._condition:
            self._roots.update((one.trace_id, one) for one in roots)
            self._condition.notify()

    def forget(self, trace_ids: Iterable[bytes]) -> None:
        """Forget roots, soon."""
        with self._condition:
            self._roots.update(dict.fromkeys(trace_ids))
            self._condition.notify()

    async def close(self, *, remove: bool) -> None:
        """Write what is to be written, and close the file.

        Args:
            remove: Whether to delete it then.
        """
        with self._condition:
            self._closing = True
            self._condition.notify()
        await asyncio.to_thread(self._thread.join)
        if remove:
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def loaded(self) -> tuple[list[Held], list[Root]]:
        """Return what the file holds. To be called once, before anything else is."""
        return self._file.held(), self._file.roots()

    def _work(self) -> None:
        try:
            while self._turn():
                pass
        finally:
            self._file.close()

    def _turn(self) -> bool:
        """Do what there is to do; say whether there will be more."""
        with self._condition:
            while not (self._awaited or self._lazy or self._closing):
                self._condition.wait()
            if not self._awaited and not self._closing:
                self._condition.wait_for(lambda: self._awaited or self._closing, LAZY_SECONDS)
            if self._closing and not self._awaited and not self._lazy:
                return False
            last = self._closing
            questions, self._questions = self._questions, deque()
            insertions: list[_Insertion] = []
            size = 0
            while self._insertions and size < _GROUP_BYTES:
                insertions.append(self._insertions.popleft())
                size += insertions[-1].size
            deletions, self._deletions = self._deletions, []
            words, self._roots = self._roots, {}
        forgotten = [trace_id for trace_id, root in words.items() if root is None]
        roots = [root for root in words.values() if root is not None]
        for question in questions:
            self._answer(question)
        if size and not self._has_room(size):
            self._settle(insertions, DiskFullError())
            insertions = []
        if not (insertions or deletions or forgotten or roots):
            return True
        error = self._commit(insertions, deletions, forgotten, roots)
        self._settle(insertions, error)
        if error is not None and (deletions or forgotten) and not last:
            # Nobody waits for these, and they must not be forgotten. Alone they need the least room.
            if (insertions or roots) and self._commit([], deletions, forgotten, []) is None:
                return True
            with self._condition:
                self._deletions[:0] = deletions
                for trace_id in forgotten:
                    self._roots.setdefault(trace_id, None)
                self._condition.wait_for(lambda: self._closing, RETRY_SECONDS)
        return True

    @property
    def _awaited(self) -> bool:
        return bool(self._insertions or self._questions)

    @property
    def _lazy(self) -> bool:
        return bool(self._deletions or self._roots)

    def _commit(
        self,
        insertions: Sequence[_Insertion],
        deletions: Sequence[int],
        forgotten: Sequence[bytes],
        roots: Sequence[Root],
    ) -> Exception | None:
        """Write it all in one transaction, or nothing; return why nothing was written."""

        def write() -> None:
            with self._file.transaction():
                self._file.delete(deletions)
                self._file.forget(forgotten)
                self._file.remember(roots)
                for one in insertions:
                    self._file.insert(one.fragments)
                    self._file.remember(one.roots)

        try:
            write()
        except Exception as error:  # noqa: BLE001  # handed to whoever asked
            if not (is_damage(error) and self._salvage(error)):
                return DiskFullError() if isinstance(error, sqlite3.Error) and is_full(error) else error
            try:
                write()
            except Exception as again:  # noqa: BLE001  # handed to whoever asked
                return again
        return None

    def _answer(self, question: _Question) -> None:
        result, error = None, None
        try:
            result = question.run(self._file)
        except Exception as first:  # noqa: BLE001  # handed to whoever asked
            error = first
            if is_damage(first) and self._salvage(first):
                try:
                    result, error = question.run(self._file), None
                except Exception as second:  # noqa: BLE001  # handed to whoever asked
                    error = second
        self._loop.call_soon_threadsafe(_set, question.future, result, error)

    def _settle(self, insertions: Sequence[_Insertion], error: Exception | None) -> None:
        for one in insertions:
            self._loop.call_soon_threadsafe(_set, one.future, None, error)

    def _has_room(self, size: int) -> bool:
        """Say whether the disk has room: fragments are written twice, to the log and then to the file."""
        with contextlib.suppress(sqlite3.Error):
            # Unused pages and a log that was moved into the file are room, too.
            while not self._disk_has(size) and self._file.shrink(_SHRINK_PAGES):
                pass
        return self._disk_has(size)

    def _disk_has(self, size: int) -> bool:
        log = self._path.with_name(self._path.name + "-wal")
        try:
            disk = os.statvfs(self._path.parent)
            written = log.stat().st_size
        except OSError:
            # SQLite will find out.
            return True
        return disk.f_bavail * disk.f_frsize >= 2 * size + written + _SPARE_BYTES

    def _salvage(self, cause: Exception) -> bool:
        """Replace a damaged file; say whether there is a sound one now."""
        self._file.close()
        try:
            self._file, salvaged = open_or_salvage(self._path, max_pages=self._max_pages, cause=str(cause))
        except (sqlite3.Error, OSError, DamagedError):
            # Operations fail on the closed file, and each brings another try.
            return False
        if salvaged is not None:
            self._loop.call_soon_threadsafe(self._on_salvage, salvaged)
        return True


def _set(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
