"""How the journal writes itself down: one half of it is a segment, a preamble and then one record after the other.

Segments are written over again and again, so each time around (a lap) has a secret mark of its own: what an earlier lap
left behind the last record is not taken for a record, and neither is what a client puts into a body.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from neatlogs_processor.core.request import Signal
from neatlogs_processor.queue.rows import Entry, Row, checksum

_MAGIC = b"NLQJ"
_PREAMBLE = struct.Struct("<4s4x8sQQI")
"""Magic, mark, lap, floor (no lower id is in the journal), CRC-32 of these."""
_PREAMBLES_AT = (0, 2048)
"""It is written twice: without it, nothing else can be found."""
FIRST_RECORD = 4096

_HEAD = struct.Struct("<8sQQQBB2xIQdQQII")
"""Mark, own offset, synced (what lies before was on the disk when this was written), floor, kind, signal, bytes of
findings, id, arrival, spans, bytes of the body, CRC-32 of the content, CRC-32 of these. Then come findings and body."""
HEAD_BYTES = _HEAD.size
_SIGNALS = tuple(Signal)
_ATTEMPTS = struct.Struct("<Q")


class Kind(IntEnum):
    """What a record says."""

    KEPT = 1
    """Here is a request."""
    GONE = 2
    """These requests have left the journal: ids, eight bytes each."""
    FAILED = 3
    """A try to deliver this one failed: the number of tries, and the last error."""


@dataclass(frozen=True)
class Lap:
    """Once around a segment.

    Attributes:
        mark: Eight bytes that nobody else knows.
        number: Later laps have higher ones, over both segments.
        floor: No lower id was in the journal when it began.
    """

    mark: bytes
    number: int
    floor: int

    def preamble(self) -> bytes:
        """Return a segment's first bytes."""
        one = _PREAMBLE.pack(_MAGIC, self.mark, self.number, self.floor, 0)[:-4]
        one += zlib.crc32(one).to_bytes(4, "little")
        return b"".join(one.ljust(FIRST_RECORD // len(_PREAMBLES_AT), b"\0") for _ in _PREAMBLES_AT)


@dataclass(frozen=True)
class Place:
    """Where a request lies.

    Attributes:
        entry: What is known of it.
        at: Where its findings begin, right before its body.
        findings: Bytes of them.
        body: Bytes of it.
        checksum: Of both; see `rows.checksum`.
    """

    entry: Entry
    at: int
    findings: int
    body: int
    checksum: int


@dataclass
class Contents:
    """What a segment holds.

    Attributes:
        lap: `None` where it holds nothing.
        end: Where the next record goes.
        floor: No lower id was in the journal, as of the last record.
        last_id: The highest id that was ever mentioned.
        kept: The requests, in order.
        gone: Ids of requests, of this or the other segment, that have left.
        failed: Tries and last errors of requests of either segment.
        damaged: How many records are not what was written, of those that had been synced.
    """

    lap: Lap | None = None
    end: int = FIRST_RECORD
    floor: int = 0
    last_id: int = 0
    kept: list[Place] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)
    failed: dict[int, tuple[int, str]] = field(default_factory=dict)
    damaged: int = 0


@dataclass(frozen=True)
class Stamp:
    """What each record of one write repeats.

    Attributes:
        mark: The lap's.
        synced: Bytes of the segment that are known to be on the disk.
        floor: No lower id is in the journal.
    """

    mark: bytes
    synced: int
    floor: int

    def kept(self, row: Row, checksum: int, at: int) -> tuple[bytes, bytes, bytes]:
        """Return a request's record, to be written at an offset: its head, findings and body."""
        findings = row.findings.encode(errors="replace")
        head = self._head(
            at, Kind.KEPT, _SIGNALS.index(row.signal), len(findings), row.id, row.received, row.spans, len(row.body),
            checksum,
        )  # fmt: skip
        return head, findings, row.body

    def gone(self, ids: list[int], at: int) -> bytes:
        """Return the record that requests have left."""
        return self._note(Kind.GONE, at, 0, struct.pack(f"<{len(ids)}Q", *ids))

    def failed(self, row_id: int, attempts: int, error: str, at: int) -> bytes:
        """Return the record that a try has failed."""
        return self._note(Kind.FAILED, at, row_id, _ATTEMPTS.pack(attempts) + error.encode(errors="replace"))

    def _note(self, kind: Kind, at: int, row_id: int, content: bytes) -> bytes:
        return self._head(at, kind, 0, 0, row_id, 0.0, 0, len(content), zlib.crc32(content)) + content

    def _head(self, at: int, kind: Kind, *values: int | float) -> bytes:
        head = _HEAD.pack(self.mark, at, self.synced, self.floor, kind, *values, 0)[:-4]
        return head + zlib.crc32(head).to_bytes(4, "little")


def size_of(row: Row) -> int:
    """Return how many bytes a request takes at most; what is not ASCII in its findings takes more than a byte."""
    return HEAD_BYTES + 4 * len(row.findings) + len(row.body)


def read(data: bytes) -> Contents:
    """Return what a segment holds, whatever has happened to it. Nothing is returned that was not written."""
    lap, sound = _lap(data)
    if lap is None:
        # Where the machine lost power while the very first record was written there is none, and nothing acknowledged.
        return Contents(damaged=int(not sound))
    contents = Contents(lap, floor=lap.floor)
    synced = FIRST_RECORD
    bad: list[int] = []
    for at, head in _heads(data, lap.mark, bad):
        content = data[at + HEAD_BYTES : at + HEAD_BYTES + head.findings + head.body]
        synced = max(synced, head.synced)
        if not _take(contents, head, at + HEAD_BYTES, content):
            bad.append(at)
            continue
        contents.end = at + HEAD_BYTES + len(content)
        contents.floor = max(contents.floor, head.floor)
    # What lies behind was being written when the processor or the machine stopped.
    contents.damaged = sum(at < synced for at in bad) + (not sound)
    contents.last_id = max(contents.floor - 1, *contents.gone, *(place.entry.id for place in contents.kept), 0)
    return contents


@dataclass(frozen=True)
class _Head:
    synced: int
    floor: int
    kind: int
    signal: int
    findings: int
    id: int
    received: float
    spans: int
    body: int
    checksum: int


def _lap(data: bytes) -> tuple[Lap | None, bool]:
    """Return the lap, and whether it, or nothing at all, was found where it is written."""
    for at in _PREAMBLES_AT:
        one = data[at : at + _PREAMBLE.size]
        if len(one) == _PREAMBLE.size and int.from_bytes(one[-4:], "little") == zlib.crc32(one[:-4]):
            magic, mark, number, floor, _ = _PREAMBLE.unpack(one)
            if magic == _MAGIC:
                return Lap(mark, number, floor), True
    if not data[:FIRST_RECORD].strip(b"\0"):
        return None, True
    # Both copies lie in one page of the disk. The first record has the mark, too; what it does not say is the number.
    first = data[FIRST_RECORD : FIRST_RECORD + HEAD_BYTES]
    if len(first) == HEAD_BYTES:
        mark, own, _, floor, *_, summed = _HEAD.unpack(first)
        if own == FIRST_RECORD and summed == zlib.crc32(first[:-4]):
            return Lap(mark, 0, floor), False
    return None, False


def _heads(data: bytes, mark: bytes, bad: list[int]) -> Iterator[tuple[int, _Head]]:
    """Return every sound head and where it is; behind what is not one, look for the next.

    Args:
        data: The segment.
        mark: The lap's.
        bad: Where there is no sound head; whoever gets a head adds it here where its content is not sound.
    """
    at = FIRST_RECORD
    while at + HEAD_BYTES <= len(data):
        raw = data[at : at + HEAD_BYTES]
        found, own, *values, summed = _HEAD.unpack(raw)
        head = _Head(*values)
        if (
            found == mark
            and own == at
            and summed == zlib.crc32(raw[:-4])
            and at + HEAD_BYTES + head.findings + head.body <= len(data)
        ):
            yield at, head
            if not bad or bad[-1] != at:
                at += HEAD_BYTES + head.findings + head.body
                continue
            # Its content is not what was written: other records may lie where it says that it goes on.
        else:
            bad.append(at)
        at = data.find(mark, at + 1)
        if at < 0:
            return


def _take(contents: Contents, head: _Head, at: int, content: bytes) -> bool:
    """Add a record; say whether it is what was written."""
    if head.kind == Kind.KEPT:
        signal = _SIGNALS[head.signal]
        entry = Entry(head.id, signal, head.received, head.spans, 0)
        findings, body = content[: head.findings], content[head.findings :]
        row = Row(head.id, signal, head.received, head.spans, body, findings.decode(errors="replace"))
        entry.size = row.size
        if head.checksum != checksum(row.seal, row.findings, body):
            return False
        contents.kept.append(Place(entry, at, head.findings, head.body, head.checksum))
        return True
    if head.checksum != zlib.crc32(content):
        return False
    if head.kind == Kind.GONE:
        contents.gone.update(struct.unpack(f"<{len(content) // 8}Q", content))
    elif head.kind == Kind.FAILED:
        (attempts,) = _ATTEMPTS.unpack_from(content)
        contents.failed[head.id] = attempts, content[_ATTEMPTS.size :].decode(errors="replace")
    return True
