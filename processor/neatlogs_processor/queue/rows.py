"""What the queue keeps of a request, and how it is written down.

A row holds the enforced bytes and what the rule found, never a header: the caller's credentials are not stored.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field, replace
from typing import Any

from neatlogs_processor.core.policy import Counts, Enforced, Override, Place
from neatlogs_processor.core.request import Request, Signal

ROW_OVERHEAD = 256
"""Bytes that a row takes beside its body and findings, so that empty requests fill the queue too."""

MAX_ERROR_CHARS = 1024
"""How much is kept of what a try failed with."""


@dataclass(frozen=True)
class Row:
    """A request on its way to the disk.

    Attributes:
        id: Grows with each request.
        signal: Which service was called.
        received: When it arrived, in seconds since the epoch by the queue's clock (see `QueueClock`).
        spans: How many spans it holds; 0 for metrics and logs.
        body: The enforced request.
        findings: What the rule found, as `write_findings` writes it.
        written_checksum: The checksum that it was written with, where it may be damaged; `None` where it is as it came.
    """

    id: int
    signal: Signal
    received: float
    spans: int
    body: bytes
    findings: str
    written_checksum: int | None = None

    @property
    def size(self) -> int:
        """Bytes that count against the queue's cap."""
        return len(self.body) + len(self.findings) + ROW_OVERHEAD

    @property
    def seal(self) -> int:
        """Checksum of what stands beside the body."""
        return seal(self.id, self.signal.value, self.received, self.spans, self.size)

    @property
    def checksum(self) -> int:
        """Checksum of what is delivered."""
        if self.written_checksum is not None:
            return self.written_checksum
        return checksum(self.seal, self.findings, self.body)


@dataclass
class Entry:
    """A request on the disk, without its body.

    Attributes:
        id: Its id.
        signal: Which service was called.
        received: When it arrived.
        spans: How many spans it holds.
        size: Bytes that it counts for.
        attempts: How many tries have failed.
        error: What the last one failed with, in words.
    """

    id: int
    signal: Signal
    received: float
    spans: int
    size: int
    attempts: int = 0
    error: str = ""

    def copy(self) -> Entry:
        """Return another one, for somebody who counts tries for himself."""
        return replace(self)


@dataclass(frozen=True)
class Totals:
    """How much the queue holds.

    Attributes:
        requests: Requests that wait for delivery.
        size: Their bytes.
        dead_requests: Dead letters: requests that the upstream refused for good, or that cannot be read any more.
        dead_size: Their bytes.
    """

    requests: int = 0
    size: int = 0
    dead_requests: int = 0
    dead_size: int = 0

    def plus(self, number: int, size: int, *, dead: bool) -> Totals:
        """Return the totals with so many requests, of so many bytes together, more (or less)."""
        if dead:
            return replace(self, dead_requests=self.dead_requests + number, dead_size=self.dead_size + size)
        return replace(self, requests=self.requests + number, size=self.size + size)


@dataclass
class Loss:
    """Requests that leave the queue without having been delivered.

    Attributes:
        requests: How many of each signal.
        spans: How many spans they hold, by signal.
        ids: Their ids.
    """

    requests: dict[Signal, int] = field(default_factory=dict)
    spans: dict[Signal, int] = field(default_factory=dict)
    ids: list[int] = field(default_factory=list)

    def add(self, entry: Entry) -> None:
        """Count one request."""
        self.requests[entry.signal] = self.requests.get(entry.signal, 0) + 1
        self.spans[entry.signal] = self.spans.get(entry.signal, 0) + entry.spans
        self.ids.append(entry.id)


def seal(*values: object) -> int:
    """Return the CRC-32 of a row's fixed columns: id, signal, arrival, spans and size."""
    return zlib.crc32(repr(values).encode(errors="replace"))


def checksum(sealed: int, findings: str, body: bytes) -> int:
    """Return the CRC-32 of a row's content, bound to its seal.

    It makes damage visible; it is no protection against forgery.
    """
    return zlib.crc32(body, zlib.crc32(findings.encode(errors="replace"), sealed))


def row_of(request: Request, row_id: int, received: float) -> Row:
    """Return the row that keeps a request."""
    spans = 0 if request.enforced is None else request.enforced.counts.spans
    return Row(row_id, request.signal, received, spans, request.body, write_findings(request.enforced))


def write_findings(enforced: Enforced | None) -> str:
    """Write down what the rule found, in ASCII; empty where it did not look (metrics and logs)."""
    if enforced is None:
        return ""
    counts = enforced.counts
    return json.dumps(
        {
            "spans": counts.spans,
            "roots": counts.roots,
            "roots_with_identity": counts.roots_with_identity,
            "overrides": {place.value: number for place, number in counts.overrides.items() if number},
            "defaults_moved": counts.defaults_moved,
            "invalid": counts.invalid,
            "reported": [
                [one.trace_id.hex(), one.span_id.hex(), one.service, one.span_name, one.place.value, one.key]
                for one in enforced.overrides
            ],
            "not_reported": enforced.overrides_not_reported,
        },
        separators=(",", ":"),
    )


def read_findings(text: str, body: bytes) -> Enforced | None:
    """Return what `write_findings` wrote, together with the body.

    Raises:
        ValueError: The text was not written by `write_findings`.
    """
    if not text:
        return None
    try:
        found: dict[str, Any] = json.loads(text)
        overrides = dict.fromkeys(Place, 0)
        overrides.update({Place(place): int(number) for place, number in found["overrides"].items()})
        counts = Counts(
            spans=found["spans"],
            roots=found["roots"],
            roots_with_identity=found["roots_with_identity"],
            overrides=overrides,
            defaults_moved=found["defaults_moved"],
            invalid=found["invalid"],
        )
        reported = [
            Override(bytes.fromhex(trace_id), bytes.fromhex(span_id), service, span_name, Place(place), key)
            for trace_id, span_id, service, span_name, place, key in found["reported"]
        ]
        return Enforced(body, counts, reported, found["not_reported"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("not the findings of a request") from error
