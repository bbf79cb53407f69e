"""What can be read of a queue's file, by the processor that holds it and by others beside it."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from neatlogs_processor.core.policy import Enforced
from neatlogs_processor.core.request import Signal
from neatlogs_processor.queue.rows import Entry, Row, checksum, read_findings, seal

_BUSY_SECONDS = 5.0


class DamagedError(Exception):
    """The file is not what was written."""


class DamagedRowError(DamagedError):
    """One request is not what was written; the others may be sound."""


class QueueReader:
    """The requests of one file.

    Args:
        connection: Made by `connect`.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def close(self) -> None:
        """Close the file; whoever is the last to do so moves the log into it."""
        self._connection.close()

    def has(self, row_id: int) -> bool:
        """Say whether a request is here."""
        return self._connection.execute("SELECT 1 FROM requests WHERE id = ?", (row_id,)).fetchone() is not None

    def waiting(self, signal: Signal, *, after: int, limit: int) -> list[Entry]:
        """Return the oldest requests of a signal that wait for delivery.

        Args:
            signal: The signal.
            after: Only those with a higher id.
            limit: How many at most.
        """
        return self._entries("WHERE signal = ? AND id > ? AND NOT dead ORDER BY id LIMIT ?", signal.value, after, limit)

    def everything(self, *, dead: bool) -> Iterator[Entry]:
        """Return the waiting requests or the dead letters, oldest first."""
        after = 0
        while page := self._entries("WHERE id > ? AND (dead != 0) = ? ORDER BY id LIMIT 256", after, dead):
            yield from page
            after = page[-1].id

    def body(self, row_id: int) -> tuple[bytes, Enforced | None] | None:
        """Return what a request delivers; `None` where it is not there.

        Raises:
            DamagedRowError: It is not what was written.
        """
        row = self.row(row_id)
        return None if row is None else content_of(row)

    def row(self, row_id: int) -> Row | None:
        """Return a whole row; see `body`."""
        found = self._connection.execute(
            "SELECT signal, received, spans, size, seal, checksum, findings, body"
            " FROM requests LEFT JOIN bodies USING (id) WHERE id = ?",
            (row_id,),
        ).fetchone()
        if found is None:
            return None
        signal, received, spans, size, sealed, summed, findings, body = found
        if (
            sealed != seal(row_id, signal, received, spans, size)
            or not isinstance(findings, str)
            or not isinstance(body, bytes)
            or summed != checksum(sealed, findings, body)
        ):
            raise DamagedRowError(f"request {row_id} is not what was written (checksum)")
        return Row(row_id, Signal(signal), received, spans, body, findings)

    def older(self, before: float, *, limit: int) -> list[Entry]:
        """Return waiting requests that arrived earlier than `before`, oldest first."""
        # Ids and arrival times have the same order, so the first one that is young enough ends the search.
        oldest = self._entries("WHERE NOT dead ORDER BY id LIMIT ?", limit)
        return list(itertools.takewhile(lambda entry: entry.received < before, oldest))

    def _entries(self, where: str, *values: object) -> list[Entry]:
        rows = self._connection.execute(
            f"SELECT id, signal, received, spans, size, seal, attempts, error FROM requests {where}",  # noqa: S608  # names of our own; values are bound
            values,
        )
        entries = []
        for row_id, signal, received, spans, size, sealed, attempts, error in rows.fetchall():
            check_seal(row_id, signal, received, spans, size, sealed)
            tries = attempts if isinstance(attempts, int) else 0
            entries.append(Entry(row_id, Signal(signal), received, spans, size, tries, str(error)))
        return entries


def content_of(row: Row) -> tuple[bytes, Enforced | None]:
    """Return what a request delivers.

    Raises:
        DamagedRowError: What the rule found cannot be read.
    """
    try:
        return row.body, read_findings(row.findings, row.body)
    except ValueError as error:
        raise DamagedRowError(f"request {row.id}: {error}") from None


@contextlib.contextmanager
def look(path: Path) -> Iterator[QueueReader]:
    """Read a file that may be in use, without changing it."""
    reader = QueueReader(connect(path, mode="ro"))
    try:
        yield reader
    finally:
        reader.close()


def check_seal(row_id: object, signal: object, received: object, spans: object, size: object, sealed: object) -> None:
    """Raise `DamagedError` where the fixed columns of a row are not what was written."""
    if sealed != seal(row_id, signal, received, spans, size):
        raise DamagedError(f"request {row_id} is not what was written (seal)")


def connect(path: Path, *, mode: str = "rw") -> sqlite3.Connection:
    """Open an existing file; transactions are ours to begin."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        timeout=_BUSY_SECONDS,
        check_same_thread=False,
    )
    # Damaged text must be read to be found out.
    connection.text_factory = lambda raw: raw.decode(errors="replace")
    return connection


def is_full(error: sqlite3.Error) -> bool:
    """Say whether there is no room on the disk. (Python 3.10 knows no error codes of SQLite.)"""
    return "full" in str(error)


def is_damage(error: Exception) -> bool:
    """Say whether the file is not what was written, as opposed to a disk that does not answer or has no room."""
    if isinstance(error, DamagedError):
        return True
    temporary = ("full", "locked", "busy", "disk I/O error", "unable to open", "readonly", "out of memory")
    return isinstance(error, sqlite3.DatabaseError) and not any(words in str(error) for words in temporary)
