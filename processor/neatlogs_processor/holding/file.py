"""One SQLite file with fragments that wait for their root, and roots that have gone on. Synchronous, for one thread."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from neatlogs_processor.core.stamping import Owner
from neatlogs_processor.errors import ProcessorError
from neatlogs_processor.holding.rows import ROW_OVERHEAD, Fragment, Held, Root

VERSION: Final = 1

_PAGE_BYTES: Final = 16 * 1024
_LOG_BYTES: Final = 8 * 2**20
# Nobody else has a reason to write to this file.
_BUSY_SECONDS: Final = 1.0
_SCHEMA: Final = (
    "CREATE TABLE fragments (id INTEGER PRIMARY KEY, trace_id BLOB NOT NULL, arrived REAL NOT NULL,"
    " spans INTEGER NOT NULL, checksum INTEGER NOT NULL, body BLOB NOT NULL)",
    "CREATE TABLE roots (trace_id BLOB PRIMARY KEY, learned REAL NOT NULL, rank BLOB NOT NULL,"
    " attributes BLOB NOT NULL, checksum INTEGER NOT NULL)",
)
_SUFFIXES: Final = ("", "-wal", "-shm")


class DamagedError(Exception):
    """The file is not what was written."""


class HoldingFile:
    """Fragments and roots in one file.

    Args:
        path: The file; made where it does not exist.
        max_pages: How many pages SQLite may use; `None` leaves it to the disk.

    Raises:
        DamagedError: The file is not a sound one.
        sqlite3.Error: It cannot be used at all.
    """

    def __init__(self, path: Path, *, max_pages: int | None = None) -> None:
        # SQLite gives the files beside it the same permissions.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS, check_same_thread=False)
        try:
            self._prepare(max_pages)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the file, with the log moved into it."""
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Make what happens inside durable when the block ends, all of it or nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            # SQLite itself has rolled back after some errors.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def insert(self, fragments: Iterable[Fragment]) -> None:
        """Keep fragments."""
        self._connection.executemany(
            "INSERT INTO fragments VALUES (?, ?, ?, ?, ?, ?)",
            ((*one.held[:4], one.checksum, one.body) for one in fragments),
        )

    def delete(self, ids: Iterable[int]) -> None:
        """Forget fragments; ids that are not there are ignored."""
        self._connection.executemany("DELETE FROM fragments WHERE id = ?", ((one,) for one in ids))

    def remember(self, roots: Iterable[Root]) -> None:
        """Keep roots, in the place of what was known of their traces."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO roots VALUES (?, ?, ?, ?, ?)",
            ((one.trace_id, one.learned, one.owner.order, one.owner.attributes, one.checksum) for one in roots),
        )

    def forget(self, trace_ids: Iterable[bytes]) -> None:
        """Forget roots."""
        self._connection.executemany("DELETE FROM roots WHERE trace_id = ?", ((one,) for one in trace_ids))

    def held(self) -> list[Held]:
        """Return what is known of all fragments, oldest first."""
        rows = self._connection.execute("SELECT id, trace_id, arrived, spans, length(body) FROM fragments ORDER BY id")
        return [
            Held(row_id, trace_id, arrived, spans, size + ROW_OVERHEAD)
            for row_id, trace_id, arrived, spans, size in rows
        ]

    def roots(self) -> list[Root]:
        """Return all sound roots, oldest first."""
        rows = self._connection.execute(
            "SELECT trace_id, learned, rank, attributes, checksum FROM roots ORDER BY rowid"
        )
        found = [
            (Root(trace_id, learned, Owner(rank, given)), summed) for trace_id, learned, rank, given, summed in rows
        ]
        return [root for root, summed in found if root.checksum == summed]

    def body(self, held: Held) -> bytes | None:
        """Return the spans of a fragment; `None` where they are not what was written."""
        found = self._connection.execute("SELECT checksum, body FROM fragments WHERE id = ?", (held.id,)).fetchone()
        if found is None or not isinstance(found[1], bytes):
            return None
        summed, body = found
        return body if Fragment(held, body).checksum == summed else None

    def shrink(self, pages: int) -> bool:
        """Give so many unused pages, and the log, back to the disk; say whether there were any pages."""
        (unused,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        # The statement frees one page a step, so all its steps have to be made.
        self._connection.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return bool(unused)

    def _prepare(self, max_pages: int | None) -> None:
        run = self._connection.execute
        run(f"PRAGMA page_size = {_PAGE_BYTES}")
        run("PRAGMA auto_vacuum = INCREMENTAL")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        # Only macOS has these: there, a plain fsync does not reach the disk.
        run("PRAGMA fullfsync = ON")
        run("PRAGMA checkpoint_fullfsync = ON")
        run(f"PRAGMA wal_autocheckpoint = {_LOG_BYTES // _PAGE_BYTES}")
        run(f"PRAGMA journal_size_limit = {2 * _LOG_BYTES}")
        if max_pages is not None:
            run(f"PRAGMA max_page_count = {max_pages}")
        if not run("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            with self.transaction():
                for statement in _SCHEMA:
                    run(statement)
        tables = tuple(sql for (sql,) in run("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid"))
        if tables != _SCHEMA:
            raise DamagedError("its tables are not those of held spans")
        verdict = run("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise DamagedError(str(verdict))
        # An earlier run may have needed more room than this one will.
        run("PRAGMA incremental_vacuum").fetchall()


class Salvage:
    """What became of a damaged file.

    Args:
        cause: What was wrong with it.
        folder: Where it lies now.
        saved: Fragments that go on.
    """

    def __init__(self, cause: str, folder: Path, saved: int) -> None:
        self.cause = cause
        self.folder = folder
        self.saved = saved


def holding_file_in(directory: Path) -> Path:
    """Return the file in a queue's directory."""
    return directory / f"holding.v{VERSION}.sqlite"


def describe_held(directory: Path) -> str:
    """Return a line about the spans that wait in a queue's directory, also beside a running processor.

    Empty where no processor has held spans there.

    Raises:
        ProcessorError: The file cannot be read.
    """
    path = holding_file_in(directory)
    if not path.is_file():
        return ""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            spans, traces, size = connection.execute(
                "SELECT ifnull(sum(spans), 0), count(DISTINCT trace_id), ifnull(sum(length(body)), 0) FROM fragments"
            ).fetchone()
    except sqlite3.Error as error:
        raise ProcessorError(f"{path} cannot be read ({error})") from None
    return f"{spans} spans of {traces} traces ({size} bytes) wait for the root of their trace (--inherit)"


def open_or_salvage(
    path: Path, *, max_pages: int | None = None, cause: str | None = None
) -> tuple[HoldingFile, Salvage | None]:
    """Open a file; a damaged one is set aside, and the fragments and roots in it that are sound go on in a new one.

    Args:
        path: The file, which this process holds and has not open.
        max_pages: See `HoldingFile`.
        cause: Why it is known to be damaged.

    Raises:
        sqlite3.Error: The disk does not let us.
        OSError: Likewise.
    """
    saved = path.with_name(path.name + ".saved")
    if saved.exists() and not path.exists():
        # A process that was killed between two names.
        saved.rename(path)
    if cause is None:
        try:
            return HoldingFile(path, max_pages=max_pages), None
        except (sqlite3.DatabaseError, DamagedError) as error:
            if not is_damage(error):
                raise
            cause = str(error)
    return _salvage(path, saved, cause, max_pages)


def _salvage(path: Path, saved: Path, cause: str, max_pages: int | None) -> tuple[HoldingFile, Salvage]:
    for suffix in _SUFFIXES:
        saved.with_name(saved.name + suffix).unlink(missing_ok=True)
    target = HoldingFile(saved)
    try:
        fragments = 0
        with target.transaction():
            for found in _sound(path):
                if isinstance(found, Root):
                    target.remember([found])
                else:
                    target.insert([found])
                    fragments += 1
    finally:
        target.close()
    folder = _set_aside(path)
    # Only now: whatever ends the process, either the damaged file or what was saved of it is there.
    saved.rename(path)
    return HoldingFile(path, max_pages=max_pages), Salvage(cause, folder, fragments)


def _set_aside(path: Path) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    for number in range(1, 1000):
        folder = path.with_name(f"corrupt-{stamp}-holding-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            break
    for suffix in reversed(_SUFFIXES):
        file = path.with_name(path.name + suffix)
        with contextlib.suppress(FileNotFoundError):
            file.rename(folder / file.name)
    return folder


def _sound(path: Path) -> Iterator[Fragment | Root]:
    """Return the fragments and roots that can be reached from either end of their tables, each once, if sound."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_SECONDS)
    try:
        seen: set[int] = set()
        for order in ("ASC", "DESC"):
            with contextlib.suppress(sqlite3.Error):
                for row_id, trace_id, arrived, spans, summed, body in connection.execute(
                    f"SELECT id, trace_id, arrived, spans, checksum, body FROM fragments ORDER BY id {order}"  # noqa: S608  # words of our own
                ):
                    if row_id in seen or not isinstance(body, bytes):
                        continue
                    seen.add(row_id)
                    fragment = Fragment(Held(row_id, trace_id, arrived, spans, len(body) + ROW_OVERHEAD), body)
                    if fragment.checksum == summed:
                        yield fragment
        with contextlib.suppress(sqlite3.Error):
            for trace_id, learned, rank, given, summed in connection.execute(
                "SELECT trace_id, learned, rank, attributes, checksum FROM roots ORDER BY rowid"
            ):
                root = Root(trace_id, learned, Owner(rank, given))
                if root.checksum == summed:
                    yield root
    finally:
        connection.close()


def is_full(error: sqlite3.Error) -> bool:
    """Say whether there is no room on the disk. (Python 3.10 knows no error codes of SQLite.)"""
    return "full" in str(error)


def is_damage(error: Exception) -> bool:
    """Say whether the file is not what was written, as opposed to a disk that does not answer or has no room."""
    if isinstance(error, DamagedError):
        return True
    temporary = ("full", "locked", "busy", "disk I/O error", "unable to open", "readonly", "out of memory")
    return isinstance(error, sqlite3.DatabaseError) and not any(words in str(error) for words in temporary)
