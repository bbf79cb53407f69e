"""One SQLite file with requests: what can be written to it, synchronously, by one thread.

Bodies lie in a table of their own, so that counting, listing and expiring do not read them. They are not compressed:
for 1.2 MB of LLM spans compression takes three times the CPU of writing them to the log and to the file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from neatlogs_processor.queue.reading import DamagedError, QueueReader, check_seal, connect
from neatlogs_processor.queue.rows import MAX_ERROR_CHARS, Loss, Row, Totals

PAGE_BYTES = 16 * 1024
"""Requests are larger than SQLite's usual 4 KiB; fewer pages are fewer log frames."""

LOG_BYTES = 8 * 2**20
"""How far the log grows before it is moved into the file, where nobody reads it."""

SCHEMA = (
    "CREATE TABLE requests (id INTEGER PRIMARY KEY, signal TEXT NOT NULL, received REAL NOT NULL,"
    " spans INTEGER NOT NULL, size INTEGER NOT NULL, seal INTEGER NOT NULL, checksum INTEGER NOT NULL,"
    " attempts INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '', dead INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE bodies (id INTEGER PRIMARY KEY, findings TEXT NOT NULL, body BLOB NOT NULL)",
)

_VACUUM_PAGES = 256


class QueueFile(QueueReader):
    """The requests of one file.

    Args:
        path: The file. It must exist; an empty one becomes a queue.
        max_pages: How many pages SQLite may use; `None` leaves it to the disk.

    Attributes:
        totals: How much there is; as of the last transaction, outside of one.
        last_id: The highest id there has been since the file was opened; 0 where there was none.
        newest: When the newest request arrived that there has been since then.

    Raises:
        DamagedError: The file is not a sound queue.
        sqlite3.Error: It cannot be used at all.
    """

    totals: Totals
    last_id: int
    newest: float | None

    def __init__(self, path: Path, *, max_pages: int | None = None) -> None:
        super().__init__(connect(path))
        self.totals, self.last_id, self.newest = Totals(), 0, None
        try:
            self._prepare(max_pages)
            self._count()
        except BaseException:
            self._connection.close()
            raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Make what happens inside durable when the block ends, all of it or nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        before = self.totals
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self.totals = before
            # SQLite itself has rolled back after some errors.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def insert(self, row: Row, *, attempts: int = 0, error: str = "", dead: bool = False) -> None:
        """Keep a request."""
        self._connection.execute(
            "INSERT INTO requests (id, signal, received, spans, size, seal, checksum, attempts, error, dead)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(row.id, row.signal.value, row.received, row.spans, row.size),
                *(row.seal, row.checksum, attempts, error[:MAX_ERROR_CHARS], dead),
            ),
        )
        self._connection.execute("INSERT INTO bodies VALUES (?, ?, ?)", (row.id, row.findings, row.body))
        self.totals = self.totals.plus(1, row.size, dead=dead)
        self._saw(row.id, row.received)

    def delete(self, ids: Iterable[int]) -> None:
        """Forget requests; ids that are not there are ignored."""
        for one in ids:
            self._take_from_totals(one)
            self._connection.execute("DELETE FROM requests WHERE id = ?", (one,))
            self._connection.execute("DELETE FROM bodies WHERE id = ?", (one,))

    def note(self, row_id: int, attempts: int, error: str) -> None:
        """Write down that a try failed."""
        self._connection.execute(
            "UPDATE requests SET attempts = ?, error = ? WHERE id = ?", (attempts, error[:MAX_ERROR_CHARS], row_id)
        )

    def bury(self, row_id: int) -> None:
        """Make a waiting request a dead letter."""
        size = self._take_from_totals(row_id)
        if size is not None:
            self._connection.execute("UPDATE requests SET dead = 1 WHERE id = ?", (row_id,))
            self.totals = self.totals.plus(1, size, dead=True)

    def revive(self, row_id: int, new: Row) -> None:
        """Give a dead letter another life: with a new id, at the end of the queue."""
        self.delete([row_id])
        self.insert(new)

    def bound_dead(self, max_bytes: int) -> Loss:
        """Delete the oldest dead letters until the others hold no more than `max_bytes`, and return what they were."""
        loss = Loss()
        excess = self.totals.dead_size - max_bytes
        if excess > 0:
            for entry in self.everything(dead=True):
                loss.add(entry)
                excess -= entry.size
                if excess <= 0:
                    break
            self.delete(loss.ids)
        return loss

    def shrink(self, keep: int) -> bool:
        """Give some unused pages back to the disk; say whether there are more.

        Args:
            keep: Bytes of unused pages that may stay, because they are about to be used again.
        """
        (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        if free * PAGE_BYTES <= keep:
            return False
        # The statement frees one page a step, so all its steps have to be made.
        self._connection.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
        return bool(free > _VACUUM_PAGES)

    def checkpoint(self) -> None:
        """Move the log into the file and empty it."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _prepare(self, max_pages: int | None) -> None:
        run = self._connection.execute
        run(f"PRAGMA page_size = {PAGE_BYTES}")
        run("PRAGMA auto_vacuum = INCREMENTAL")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        # Only macOS has these: there, a plain fsync does not reach the disk.
        run("PRAGMA fullfsync = ON")
        run("PRAGMA checkpoint_fullfsync = ON")
        run(f"PRAGMA wal_autocheckpoint = {LOG_BYTES // PAGE_BYTES}")
        run(f"PRAGMA journal_size_limit = {2 * LOG_BYTES}")
        if max_pages is not None:
            run(f"PRAGMA max_page_count = {max_pages}")
        if not run("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            with self.transaction():
                for statement in SCHEMA:
                    run(statement)
        if tuple(sql for (sql,) in run("SELECT sql FROM sqlite_master ORDER BY rowid")) != SCHEMA:
            raise DamagedError("its tables are not the queue's")
        verdict = run("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise DamagedError(str(verdict))

    def _count(self) -> None:
        """Add everything up, and look at each row's seal on the way."""
        rows = self._connection.execute(
            "SELECT id, signal, received, spans, size, seal, dead FROM requests ORDER BY id"
        )
        for row_id, signal, received, spans, size, sealed, dead in rows:
            check_seal(row_id, signal, received, spans, size, sealed)
            self.totals = self.totals.plus(1, size, dead=bool(dead))
            self._saw(row_id, received)

    def _saw(self, row_id: int, received: float) -> None:
        # What moves here out of the journal counts: no later request may get one of these ids.
        self.last_id = max(self.last_id, row_id)
        self.newest = received if self.newest is None else max(self.newest, received)

    def _take_from_totals(self, row_id: int) -> int | None:
        found = self._connection.execute("SELECT size, dead FROM requests WHERE id = ?", (row_id,)).fetchone()
        if found is None:
            return None
        size, dead = found
        self.totals = self.totals.plus(-1, -size, dead=bool(dead))
        return int(size)
