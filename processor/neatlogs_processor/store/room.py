"""Room on the disk: spans are taken only while there is room for deletions too, so that a full disk can empty."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from neatlogs_processor.store.files import beside

RESERVE_BYTES: Final = 4 * 2**20
"""Held in a file of its own, and given up for a moment where even a deletion finds no room in the log."""

_MARGIN_BYTES: Final = 2**20
"""What a request takes beyond its own bytes: pages that are not full, indices."""


class Room:
    """The room that the store at a path has.

    Args:
        path: The store's file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reserve = beside(path, "reserve")

    def log_bytes(self) -> int:
        """Return how large the write-ahead log is."""
        try:
            return beside(self._path, "wal").stat().st_size
        except OSError:
            return 0

    def has_room(self, size: int) -> bool:
        """Say whether the disk has room for so many bytes more.

        They are written twice, to the log and then to the file. What is in the log already has to reach the file as
        well: a log that cannot be emptied could only grow, even by deletions.
        """
        try:
            disk = os.statvfs(self._path.parent)
        except OSError:
            # SQLite will find out.
            return True
        return disk.f_bavail * disk.f_frsize >= 2 * size + _MARGIN_BYTES + self.log_bytes()

    def keep_reserve(self) -> bool:
        """Take the reserve where it is not held; say whether it is."""
        try:
            with contextlib.suppress(FileNotFoundError):
                if self._reserve.stat().st_size == RESERVE_BYTES:
                    return True
            file = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                # Zeros that were really written: a hole in a file holds no room.
                written = os.write(file, bytes(RESERVE_BYTES))
                os.fsync(file)
            finally:
                os.close(file)
        except OSError:
            written = 0
        if written != RESERVE_BYTES:
            self.give_up_reserve()
            return False
        return True

    def give_up_reserve(self) -> None:
        """Let others have the room: a deletion, most likely."""
        with contextlib.suppress(OSError):
            self._reserve.unlink()
