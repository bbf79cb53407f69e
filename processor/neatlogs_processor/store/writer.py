"""The one who writes a store: groups of requests in, each in whole or not at all; retention; room on the disk.

Nothing here knows of threads or event loops: `sqlite.py` runs it in a thread.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.request import Request
from neatlogs_processor.errors import ConfigError, StoreUnavailableError
from neatlogs_processor.store.files import LOG_BYTES, checkpoint, is_busy, is_damaged, is_full, open_writer
from neatlogs_processor.store.retention import Limits, Pruned, give_back, prune
from neatlogs_processor.store.room import Room
from neatlogs_processor.store.rows import Batch, read_request
from neatlogs_processor.store.writing import Writing, Written

_FEW_SPANS: Final = 200
"""How many spans go at once where the disk is full: what that writes fits into the reserve."""
_PAGES_FOR_OTHERS: Final = 4096
"""Free pages that are given back at once where the disk is full: 32 MiB."""
_LOG_SECONDS: Final = 5.0
"""How often it is tried to cut back a log that has grown because somebody was reading."""


@dataclass
class Outcome:
    """What became of a group of requests.

    Attributes:
        written: What is in the store now, or was.
        answers: For each request how many spans could not be kept because they have no id, or why nothing was kept.
    """

    answers: list[int | Exception]
    written: Written = field(default_factory=Written)


class Writer:
    """Writes the store at a path. For one thread.

    Args:
        path: The file; made where it does not exist.
        policy: What the rule was told.
        limits: How much is kept.
        clock: Returns nanoseconds since the epoch.
        monotonic: Returns seconds.
        patience: Seconds for which a transaction waits for another process that writes.
        unavailable: Makes the error for a request that may be kept later, from the cause.

    Raises:
        ConfigError: The file cannot be used.
    """

    def __init__(
        self,
        path: Path,
        *,
        policy: EndUserPolicy,
        limits: Limits,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        patience: float,
        unavailable: Callable[[str], StoreUnavailableError],
    ) -> None:
        self._path = path
        self._policy = policy
        self._limits = limits
        self._clock = clock
        self._monotonic = monotonic
        self._patience = patience
        self._unavailable = unavailable
        self._room = Room(path)
        self._connection = self._open()
        self._file = self._identity()
        self._writing = Writing(self._connection)
        self._room.keep_reserve()
        self._log_tried = self._monotonic()

    def close(self) -> None:
        """Move the log into the file, so that the file alone is the store, and close it."""
        # SQLite does it by itself, but not while somebody reads, as the page does. Without room the log stays.
        with contextlib.suppress(sqlite3.Error):
            checkpoint(self._connection)
        self._connection.close()

    def write(self, requests: Sequence[Request]) -> Outcome:
        """Keep the spans of requests, those that are there already excepted. Raises nothing."""
        outcome = Outcome([0] * len(requests))
        batches: dict[int, Batch] = {}
        for index, request in enumerate(requests):
            read = self._read(request)
            if isinstance(read, Batch):
                batches[index] = read
                outcome.answers[index] = read.without_id
            else:
                outcome.answers[index] = read
        cause = self._obstacle(sum(len(requests[index].body) for index in batches))
        if cause:
            for index in batches:
                outcome.answers[index] = self._unavailable(cause)
        elif batches:
            self._write(requests, batches, outcome)
        return outcome

    def tidy(self, spans: int) -> Pruned:
        """Let go what is beyond the limits, one step; give free pages and an overgrown log back to the disk.

        Args:
            spans: How many spans to delete at most, if that leaves at least one trace.

        Raises:
            sqlite3.Error: Nothing was deleted.
        """
        now = self._clock()
        try:
            pruned = prune(self._connection, self._limits, now, spans=spans)
        except sqlite3.Error as error:
            if not is_full(error):
                raise
            pruned = self._prune_on_full_disk(now)
        if pruned.traces:
            # Resources may have gone that are believed to be there.
            self._writing.forget_shared()
        if self._room.log_bytes() > LOG_BYTES and self._monotonic() - self._log_tried >= _LOG_SECONDS:
            self._checkpoint()
            self._log_tried = self._monotonic()
        return pruned

    def _open(self) -> sqlite3.Connection:
        try:
            return open_writer(self._path, patience=self._patience)
        except ConfigError:
            # On a full disk even opening needs room: for the log and its index.
            self._room.give_up_reserve()
            return open_writer(self._path, patience=self._patience)

    def _read(self, request: Request) -> Batch | Exception:
        try:
            return read_request(request.body, self._policy)
        except Exception as error:  # noqa: BLE001  # handed to whoever sent it
            return error

    def _write(self, requests: Sequence[Request], batches: dict[int, Batch], outcome: Outcome) -> None:
        try:
            self._commit(requests, batches, outcome)
        except Exception as error:  # noqa: BLE001  # handed to whoever sent it
            if len(batches) > 1 and not _concerns_all(error):
                # One request that cannot be written must not cost the others.
                for index, batch in batches.items():
                    self._write(requests, {index: batch}, outcome)
                return
            for index in batches:
                outcome.answers[index] = self._unavailable(_cause(error)) if _concerns_all(error) else error

    def _commit(self, requests: Sequence[Request], batches: dict[int, Batch], outcome: Outcome) -> None:
        written = self._writing.write(
            [
                (batch, () if (enforced := requests[index].enforced) is None else enforced.overrides)
                for index, batch in batches.items()
            ],
            self._clock(),
        )
        outcome.written.spans += written.spans
        outcome.written.duplicates += written.duplicates

    def _obstacle(self, size: int) -> str:
        """Say why nothing can be kept at the moment, where that can be known without trying."""
        if self._identity() != self._file:
            # SQLite would go on with a file that has no name any more, and all would be lost with the process.
            return f"{self._path} was removed or replaced while it was open; restart the processor"
        return "" if self._has_room(size) else "there is no room on the disk"

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _has_room(self, size: int) -> bool:
        if not self._room.has_room(size):
            # Unused pages, and a log that was moved into the file, are room too.
            with contextlib.suppress(sqlite3.Error):
                give_back(self._connection, Limits(max_bytes=0), pages=_PAGES_FOR_OTHERS)
            self._checkpoint()
        return self._room.has_room(size) and self._room.keep_reserve()

    def _prune_on_full_disk(self, now: int) -> Pruned:
        """Use the reserve for what makes room, and take it back at once: others write to this disk, too."""
        self._room.give_up_reserve()
        try:
            pruned = prune(self._connection, self._limits, now, spans=_FEW_SPANS)
            # An empty log frees what was written to it.
            self._checkpoint()
        finally:
            self._room.keep_reserve()
        return pruned

    def _checkpoint(self) -> None:
        # It does not matter when it happens, except that it is needed for room; and then whoever asks for that looks.
        with contextlib.suppress(sqlite3.Error):
            checkpoint(self._connection)


def _concerns_all(error: Exception) -> bool:
    """Say whether it is about the file and not about what was to be written."""
    about_rows = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
    return isinstance(error, sqlite3.Error) and not isinstance(error, about_rows)


def _cause(error: Exception) -> str:
    assert isinstance(error, sqlite3.Error)  # noqa: S101  # see `_concerns_all`
    if is_full(error):
        return f"there is no room on the disk, or it fails ({error})"
    if is_busy(error):
        return "another process is writing to it (store prune or forget?)"
    if is_damaged(error):
        return f"its file is damaged ({error}); stop the processor and move the file away, or restore it from a copy"
    return str(error)
