"""Erasing an end user from a store: their traces, and every byte of them that deleting leaves behind.

Deleting is done in steps, so that a processor can write in between. What SQLite leaves of deleted rows, in free pages,
in the gaps of pages and in the write-ahead log, goes when the file is written anew and the log is emptied.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Final

from neatlogs_processor.errors import ConfigError, ProcessorError
from neatlogs_processor.store.blocks import decompress
from neatlogs_processor.store.files import BUSY_SECONDS, is_busy, is_full, open_writer, transaction
from neatlogs_processor.store.found import Found
from neatlogs_processor.store.retention import bytes_used, delete_traces, give_back_all
from neatlogs_processor.store.rows import identity_of

_STEP_TRACES: Final = 100
_TRIES: Final = 6
"""Each waits as long as the caller has patience."""


class Forgetting:
    """Erases one end user from one store; a context manager. Other processes may use the store meanwhile.

    Args:
        path: The store's file.
        end_user: The id, exactly.
        room: Returns how many bytes are free in a directory.
        patience: Seconds to wait for other processes, each time.

    Raises:
        ConfigError: On entering: there is no store, or it cannot be used.
    """

    def __init__(
        self,
        path: Path,
        end_user: str,
        *,
        room: Callable[[Path], int] | None = None,
        patience: float = BUSY_SECONDS,
    ) -> None:
        self._path = path
        self._end_user = end_user
        self._patience = patience
        self._room = room or (lambda folder: shutil.disk_usage(folder).free)

    def __enter__(self) -> Forgetting:
        if not self._path.is_file():
            raise ConfigError(f"--store: there is no store at {self._path}")
        self._connection = open_writer(self._path)
        self._connection.execute(f"PRAGMA busy_timeout = {round(self._patience * 1000)}")
        # Zeros over what is deleted: should the file not be written anew in the end, little is left to be found.
        self._connection.execute("PRAGMA secure_delete = ON")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def found(self) -> Found:
        """Return what there is to erase."""
        traces, spans = self._connection.execute(
            "SELECT count(*), coalesce(sum(spans), 0) FROM traces WHERE end_user = ?", (self._end_user,)
        ).fetchone()
        return Found(traces, spans, len(self._mixed()))

    def erase(self) -> Found:
        """Erase, and return what was erased.

        Raises:
            ProcessorError: Not everything could be done; the message says what was, and what to do. Doing it again is
                always right.
        """
        try:
            erased = self._delete()
        except sqlite3.Error as error:
            if is_busy(error):
                raise ProcessorError("another process is writing to the store without a pause; try again") from None
            raise ProcessorError(f"not everything could be deleted ({error}); try again") from None
        try:
            self._write_anew()
        except sqlite3.Error as error:
            raise ProcessorError(self._left(f"could not be written anew ({error})")) from None
        return erased

    def _delete(self) -> Found:
        mixed = self._mixed()
        shared: dict[str, set[int]] = {"resource": set(), "scope": set()}
        _, spans = self._delete_traces(mixed, shared)
        traces = 0
        # Spans may arrive in between, so it ends when there is nothing left, and not when what was counted is gone.
        while some := self._theirs():
            more, of_them = self._delete_traces(some, shared)
            traces += more
            spans += of_them
        with transaction(self._connection):
            # What they shared with nobody else may speak of them too: a resource may name the user's own machine.
            for column, numbers in shared.items():
                self._delete_unshared(column, numbers)
        return Found(traces, spans, len(mixed))

    def _theirs(self) -> list[int]:
        rows = self._connection.execute(
            "SELECT id FROM traces WHERE end_user = ? ORDER BY id LIMIT ?", (self._end_user, _STEP_TRACES)
        )
        return [number for (number,) in rows]

    def _mixed(self) -> list[int]:
        """Return the traces whose end user is another, or none, and in which a root names this one all the same."""
        rows = self._connection.execute(
            "SELECT id FROM traces WHERE (roots > 1 OR head_rank = 0) AND end_user IS NOT ?", (self._end_user,)
        ).fetchall()
        return [number for (number,) in rows if self._end_user in self._named_in(number)]

    def _named_in(self, trace: int) -> set[str]:
        """Return the end users that the roots of a trace name."""
        places: dict[int, list[int]] = {}
        for block, position in self._connection.execute(
            "SELECT block, position FROM spans WHERE trace = ? AND rank < 2", (trace,)
        ):
            places.setdefault(block, []).append(position)
        named: set[str | None] = set()
        for block, positions in places.items():
            row = self._connection.execute("SELECT body FROM blocks WHERE id = ?", (block,)).fetchone()
            try:
                spans = decompress(row[0])
            except (ValueError, TypeError):
                # Damaged: what cannot be read cannot be shown to be theirs.
                continue
            named.update(identity_of(spans[position]) for position in positions if position < len(spans))
        return {end_user for end_user in named if end_user is not None}

    def _delete_traces(self, numbers: Iterable[int], shared: dict[str, set[int]]) -> tuple[int, int]:
        traces = spans = 0
        with transaction(self._connection):
            for number in numbers:
                for column, known in shared.items():
                    known.update(
                        one
                        for (one,) in self._connection.execute(
                            f"SELECT DISTINCT {column} FROM spans WHERE trace = ?",  # noqa: S608  # one of two constants
                            (number,),
                        )
                    )
                row = self._connection.execute("SELECT spans FROM traces WHERE id = ?", (number,)).fetchone()
                if row is not None:
                    traces += 1
                    spans += row[0]
                    delete_traces(self._connection, [number])
        return traces, spans

    def _delete_unshared(self, column: str, numbers: set[int]) -> None:
        if not numbers:
            return
        used = {one for (one,) in self._connection.execute(f"SELECT DISTINCT {column} FROM spans")}  # noqa: S608  # names of our own; values are bound
        self._connection.executemany(
            f"DELETE FROM {column}s WHERE id = ?",  # noqa: S608  # one of two constants
            [(number,) for number in numbers - used],
        )

    def _write_anew(self) -> None:
        # A copy beside the file and the same once more in the log, before either goes.
        needed = 2 * bytes_used(self._connection)
        room = self._room(self._path.parent)
        if room < needed:
            give_back_all(self._connection)
            self._empty_log()
            raise ProcessorError(self._left(f"needs {needed:,} bytes to be written anew, and {room:,} are free"))
        # The copy goes where the store is, which is as private and has room, and not into a directory of everybody's.
        folder = str(self._path.absolute().parent).replace("'", "''")
        self._connection.execute(f"PRAGMA temp_store_directory = '{folder}'")
        for attempt in range(_TRIES):
            try:
                self._connection.execute("VACUUM")
                break
            except sqlite3.OperationalError as error:
                if is_full(error):
                    give_back_all(self._connection)
                    self._empty_log()
                    raise ProcessorError(self._left("found no room to be written anew")) from None
                if not is_busy(error) or attempt == _TRIES - 1:
                    raise
        self._empty_log()

    def _empty_log(self) -> None:
        for _ in range(_TRIES):
            busy, *_ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy:
                return
        raise ProcessorError(self._left("is being read without a pause, so that its log could not be emptied"))

    @staticmethod
    def _left(why: str) -> str:
        return (
            f"the traces are deleted, but the store {why}: parts of them may still lie in unused space of its files;"
            " do it again to clear that"
        )
