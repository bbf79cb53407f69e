"""What is kept of spans that wait, and of roots that have gone on."""

from __future__ import annotations

import zlib
from typing import Final, NamedTuple

from neatlogs_processor.core.stamping import Owner

ROW_OVERHEAD: Final = 128
"""Bytes that a fragment takes beside its spans, so that many small ones fill the room too."""

ROOT_OVERHEAD: Final = 400
"""Bytes of memory that a remembered root takes beside the attributes that it gives."""


class Held(NamedTuple):
    """A fragment: spans of one trace that arrived in one request and wait on the disk.

    Attributes:
        id: Grows with each fragment.
        trace_id: 16 bytes.
        arrived: When, in seconds since the epoch by the clock of whoever holds it.
        spans: How many spans it has.
        size: Bytes that it counts for.
    """

    id: int
    trace_id: bytes
    arrived: float
    spans: int
    size: int


class Fragment(NamedTuple):
    """A fragment with its spans.

    Attributes:
        held: What is known of it.
        body: The spans, as a serialised `ExportTraceServiceRequest`.
    """

    held: Held
    body: bytes

    @property
    def checksum(self) -> int:
        """CRC-32 of all of it. It makes damage visible; it is no protection against forgery."""
        held = self.held
        return zlib.crc32(self.body, zlib.crc32(repr((held.id, held.trace_id, held.arrived, held.spans)).encode()))


class Root(NamedTuple):
    """What is remembered of a trace whose root has gone on.

    Attributes:
        trace_id: 16 bytes.
        learned: When it arrived, in seconds since the epoch.
        owner: What it gives to the other spans of its trace.
    """

    trace_id: bytes
    learned: float
    owner: Owner

    @property
    def size(self) -> int:
        """Bytes of memory that it counts for."""
        return ROOT_OVERHEAD + len(self.owner.attributes)

    @property
    def checksum(self) -> int:
        """See `Fragment.checksum`."""
        return zlib.crc32(repr((self.trace_id, self.learned, self.owner)).encode())


def fragment_of(row_id: int, trace_id: bytes, arrived: float, spans: int, body: bytes) -> Fragment:
    """Return a fragment of so many spans."""
    return Fragment(Held(row_id, trace_id, arrived, spans, len(body) + ROW_OVERHEAD), body)
