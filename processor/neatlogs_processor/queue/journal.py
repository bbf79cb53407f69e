"""The journal: where requests wait that are about to be delivered, so that most never reach the database.

A request that the upstream takes at once needs its bytes on the disk for a moment. SQLite writes them twice, sums them
up, and writes again to forget them; here they are written once, over those of requests that have left. What stays for
longer moves on into the database when its place is needed.

There are two segments, used by turns: one takes new requests, the other waits until its last request has left or moved.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from neatlogs_processor.queue import segment
from neatlogs_processor.queue.reading import DamagedRowError
from neatlogs_processor.queue.rows import MAX_ERROR_CHARS, Entry, Row, checksum
from neatlogs_processor.queue.segment import FIRST_RECORD, Contents, Lap, Place, Stamp

SEGMENT_BYTES = 64 * 2**20

TURN_BYTES = 8 * 2**20
"""From here on the other segment has its turn if it is free, and where nothing waits the segment begins anew: the fewer
bytes are written over and over, the more of them stay in the processor's and the disk's caches."""

_LARGEST_SHARE = 2
"""A request of more than half a segment goes into the database."""

_SHARE_OF_TRIES = 8
"""One write notes failed tries in so much of a segment, where many have gathered."""

_MANY = 4096
"""How many requests a segment takes, because what is known of each is kept in memory."""

_BUFFERS = 512
"""How many pieces one system call may write (IOV_MAX is 1024 everywhere)."""


class Journal:
    """Two files of requests. For one thread.

    Args:
        paths: The two files, in a directory that this process holds; they are made where they do not exist.
        segment_bytes: How large each may become.
        sync: Puts what was written to a file on the disk; raises `OSError` where it is not there.

    Attributes:
        damaged: How many records were found that are not what was written.
        last_id: The highest id of any request that was ever in these files, when they were opened.
        size: Bytes that what is here counts for.

    Raises:
        OSError: The disk does not let us.
    """

    def __init__(
        self, paths: tuple[Path, Path], *, segment_bytes: int = SEGMENT_BYTES, sync: Callable[[int], None] | None = None
    ) -> None:
        self._paths = paths
        self._sync = _sync if sync is None else sync
        self._is_new = True
        self._segment_bytes = segment_bytes
        self._turn_bytes = min(TURN_BYTES, segment_bytes // 2)
        self._files: list[int] = []
        try:
            for path in paths:
                self._files.append(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            contents = [_contents(file) for file in self._files]
            self._sizes = [os.fstat(file).st_size for file in self._files]
        except BaseException:
            self.close()
            raise
        self.damaged = sum(one.damaged for one in contents)
        self.last_id = max(one.last_id for one in contents)
        laps = [0 if one.lap is None else one.lap.number for one in contents]
        self._active = laps.index(max(laps))
        self._last_lap = max(laps)
        self._lap = contents[self._active].lap
        self._end = contents[self._active].end
        self._synced = FIRST_RECORD
        # Written with everything until it is known to be on the disk.
        self._preamble = b"" if self._lap is None else self._lap.preamble()
        self._places: dict[int, tuple[int, Place]] = {}
        self._counts = [0, 0]
        self.size = 0
        self._gone: list[int] = []
        self._failed: dict[int, Entry] = {}
        for number in sorted((0, 1), key=laps.__getitem__):
            self._take_over(number, contents[number], contents)
        # What was refused, because the disk said that it had failed, may lie behind what was taken afterwards.
        self._places = dict(sorted(self._places.items()))

    def __len__(self) -> int:
        """How many requests are here."""
        return len(self._places)

    def __contains__(self, row_id: object) -> bool:
        """Say whether a request is here."""
        return row_id in self._places

    @property
    def entries(self) -> Iterator[Entry]:
        """The requests that are here, oldest first."""
        return (place.entry for _, place in self._places.values())

    def entry(self, row_id: int) -> Entry:
        """Return what is known of a request that is here."""
        return self._places[row_id][1].entry

    def takes(self, row: Row) -> bool:
        """Say whether a request is small enough."""
        return segment.size_of(row) <= (self._segment_bytes - FIRST_RECORD) // _LARGEST_SHARE

    def keep(self, rows: Sequence[Row], has_room: Callable[[int], bool]) -> int:
        """Write requests, and return when they are on the disk.

        Args:
            rows: Such as it takes, with higher ids than any before.
            has_room: Says whether the disk has so many bytes for what the files grow by.

        Returns:
            How many of them there was room for. 0: `in_the_way` has to leave first.

        Raises:
            OSError: None of them was kept: no room on the disk (ENOSPC), or it fails.
        """
        stamp = self._stamp(self._choose_lap(rows[0].id), rows[0].id)
        pieces, end = self._notes(stamp)
        placed: list[Place] = []
        for row in rows:
            if end + segment.size_of(row) > self._segment_bytes or self._counts[self._active] + len(placed) >= _MANY:
                break
            # A third of all that a large request costs here.
            summed = row.checksum
            head, findings, body = stamp.kept(row, summed, end)
            pieces += (head, findings, body)
            entry = Entry(row.id, row.signal, row.received, row.spans, row.size)
            placed.append(Place(entry, end + len(head), len(findings), len(body), summed))
            end += len(head) + len(findings) + len(body)
        if not placed:
            if not self._counts[1 - self._active]:
                self._begin(1 - self._active, rows[0].id)
                return self.keep(rows, has_room)
            return 0
        growth = end - self._sizes[self._active]
        if growth > 0 and not has_room(growth):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        file = self._files[self._active]
        self._write(pieces)
        self._sync(file)
        if self._is_new:
            # Or nobody would find the files after the machine lost power.
            _sync_folder(self._paths[0].parent)
            self._is_new = False
        self._written(end)
        self._preamble = b""
        self._synced = end
        for place in placed:
            self._add(self._active, place)
        return len(placed)

    def in_the_way(self) -> list[int]:
        """Return the ids of what has to leave before new requests can be taken."""
        return [row_id for row_id, (number, _) in self._places.items() if number != self._active]

    def forget(self, ids: Iterable[int]) -> None:
        """Let requests leave. `write_notes` makes a note of it; ids that are not here are ignored."""
        for row_id in ids:
            found = self._places.pop(row_id, None)
            if found is not None:
                number, place = found
                self._counts[number] -= 1
                self.size -= place.entry.size
                self._gone.append(row_id)
                self._failed.pop(row_id, None)

    def failed(self, row_id: int, attempts: int, error: str) -> None:
        """Remember that a try failed. `write_notes` makes a note of it."""
        entry = self.entry(row_id)
        entry.attempts, entry.error = attempts, error[:MAX_ERROR_CHARS]
        self._failed[row_id] = entry

    def write_notes(self) -> None:
        """Write down what has left and what has failed, without waiting for the disk.

        A killed processor loses nothing of it; a machine without power may, and then requests go out a second time.

        Raises:
            OSError: The disk fails. It is tried again with whatever is written next.
        """
        if (self._gone or self._failed) and self._lap is not None:
            pieces, end = self._notes(self._stamp(self._lap, 0))
            self._write(pieces)
            self._written(end)

    def make_room(self) -> None:
        """Give the room of a segment in which nothing waits back to the disk.

        Raises:
            OSError: The disk fails.
        """
        idle = 1 - self._active
        if not self._counts[idle] and self._sizes[idle]:
            os.ftruncate(self._files[idle], 0)
            self._sizes[idle] = 0

    def row(self, row_id: int) -> Row:
        """Return a request that is here.

        Raises:
            DamagedRowError: It is not what was written.
            OSError: The disk does not let us.
        """
        row = self.unchecked(row_id)
        if checksum(row.seal, row.findings, row.body) != row.checksum:
            raise DamagedRowError(f"request {row_id} is not what was written (checksum)")
        return row

    def unchecked(self, row_id: int) -> Row:
        """Return a request as it is, with the checksum that it was written with; see `row`."""
        number, place = self._places[row_id]
        file, entry = self._files[number], place.entry
        # What was cut off is found out by the checksum.
        findings = os.pread(file, place.findings, place.at).decode(errors="replace")
        body = os.pread(file, place.body, place.at + place.findings)
        return Row(entry.id, entry.signal, entry.received, entry.spans, body, findings, place.checksum)

    def close(self) -> None:
        """Close the files. What is in them is found by the next one who opens them."""
        for file in self._files:
            os.close(file)
        self._files = []

    def remove(self) -> None:
        """Delete the files."""
        for path in self._paths:
            path.unlink(missing_ok=True)

    def _take_over(self, number: int, own: Contents, both: Sequence[Contents]) -> None:
        floor = max(one.floor for one in both)
        for place in own.kept:
            entry = place.entry
            if entry.id < floor or any(entry.id in one.gone for one in both):
                continue
            for one in both:
                if entry.id in one.failed:
                    entry.attempts, entry.error = one.failed[entry.id]
            self._add(number, place)

    def _add(self, number: int, place: Place) -> None:
        self._places[place.entry.id] = number, place
        self._counts[number] += 1
        self.size += place.entry.size

    def _choose_lap(self, next_id: int) -> Lap:
        if self._lap is None or (not self._places and self._end >= self._turn_bytes):
            return self._begin(self._active, next_id)
        if self._end >= self._turn_bytes and not self._counts[1 - self._active]:
            return self._begin(1 - self._active, next_id)
        return self._lap

    def _begin(self, number: int, next_id: int) -> Lap:
        """Write over a segment that nothing waits in."""
        self._active = number
        self._last_lap += 1
        self._lap = Lap(os.urandom(8), self._last_lap, self._floor(next_id))
        self._preamble = self._lap.preamble()
        self._end = self._synced = FIRST_RECORD
        if not self._places:
            # The floor says so.
            self._gone.clear()
        return self._lap

    def _floor(self, next_id: int) -> int:
        return next(iter(self._places), next_id)

    def _stamp(self, lap: Lap, next_id: int) -> Stamp:
        return Stamp(lap.mark, self._synced, self._floor(next_id))

    def _notes(self, stamp: Stamp) -> tuple[list[bytes], int]:
        """Return the bytes with which a write begins, and where they end."""
        pieces, end = [], self._end
        if self._gone:
            pieces.append(stamp.gone(self._gone, end))
            end += len(pieces[-1])
        for entry in self._failed.values():
            if end > min(self._segment_bytes, self._end + self._segment_bytes // _SHARE_OF_TRIES):
                # What has left must be known; a number of tries can be forgotten, and has to leave room for requests.
                break
            pieces.append(stamp.failed(entry.id, entry.attempts, entry.error, end))
            end += len(pieces[-1])
        return pieces, end

    def _write(self, pieces: list[bytes]) -> None:
        file = self._files[self._active]
        at = self._end
        if self._preamble and at == FIRST_RECORD:
            pieces, at = [self._preamble, *pieces], 0
        elif self._preamble:
            # Notes are behind it, and yet it need not be on the disk: the system tries nothing twice.
            _write_all(file, [self._preamble], 0)
        _write_all(file, pieces, at)

    def _written(self, end: int) -> None:
        self._end = end
        self._sizes[self._active] = max(end, self._sizes[self._active])
        self._gone.clear()
        self._failed.clear()


def _contents(file: int) -> Contents:
    size = os.fstat(file).st_size
    if not size:
        return Contents()
    # Not mapped: a sector that cannot be read would end the process without a word.
    return segment.read(b"".join(_pieces(file, size)))


def _pieces(file: int, size: int) -> Iterator[bytes]:
    at = 0
    while piece := os.pread(file, size - at, at):
        yield piece
        at += len(piece)


def look_at(paths: Iterable[Path]) -> list[Entry]:
    """Return what waits in a journal that another process may be writing to, oldest first.

    Raises:
        OSError: It cannot be read.
    """
    both = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            # Not mapped: the file may become shorter meanwhile.
            both.append(segment.read(path.read_bytes()))
    floor = max((one.floor for one in both), default=0)
    gone = {row_id for one in both for row_id in one.gone}
    entries = {place.entry.id: place.entry for one in both for place in one.kept}
    for one in both:
        for row_id, (attempts, error) in one.failed.items():
            if row_id in entries:
                entries[row_id].attempts, entries[row_id].error = attempts, error
    return [entries[row_id] for row_id in sorted(entries) if row_id >= floor and row_id not in gone]


def _write_all(file: int, pieces: list[bytes], at: int) -> None:
    for first in range(0, len(pieces), _BUFFERS):
        some: list[bytes | memoryview] = list(pieces[first : first + _BUFFERS])
        while some:
            written = os.pwritev(file, some, at)
            at += written
            while some and written >= len(some[0]):
                written -= len(some.pop(0))
            if some:
                some[0] = memoryview(some[0])[written:]


def _sync_folder(path: Path) -> None:
    """Put the names of new files on the disk."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _sync(file: int) -> None:
    full: int | None = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        # Only macOS has it: there, a plain fsync does not reach the disk.
        fcntl.fcntl(file, full)
    else:
        os.fdatasync(file)
