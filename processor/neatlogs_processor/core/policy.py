"""What the rule is told (`EndUserPolicy`) and what it tells (`Enforced`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, NamedTuple

MAX_REPORTED_OVERRIDES = 64
"""How many overrides of one request are described; the others are only counted."""


class Place(str, Enum):
    """Where an ignored override stood."""

    CHILD = "child"
    EVENT = "event"
    LINK = "link"
    SCOPE = "scope"

    # Members are keys of counters on the hot path, and the hash of an enum is computed in Python.
    __hash__ = str.__hash__


@dataclass(frozen=True)
class EndUserPolicy:
    """Which spans own a trace's end user.

    Attributes:
        roots: `"trace"`: only root spans. `"entry"`: also entry spans (children whose parent is remote) of the
            services listed in `entry_services`.
        entry_services: `service.name` values, compared exactly. Read only with `roots="entry"`.
    """

    roots: Literal["trace", "entry"] = "trace"
    entry_services: frozenset[str] = frozenset()


class Override(NamedTuple):
    """One ignored override: where it stood and under which key, never its value.

    Attributes:
        trace_id: As on the wire, normally 16 bytes; empty for a scope.
        span_id: As on the wire, normally 8 bytes; empty for a scope.
        service: The resource's `service.name`, or `""`.
        span_name: The span's name; the scope's name where `place` is `Place.SCOPE`.
        place: Where it stood.
        key: The attribute key.
    """

    trace_id: bytes
    span_id: bytes
    service: str
    span_name: str
    place: Place
    key: str


@dataclass
class Counts:
    """What one request held and what the rule did with it.

    Attributes:
        spans: Spans of every kind.
        roots: Spans that own identity under the policy.
        roots_with_identity: Of these, the ones that leave with a non-empty end-user id.
        overrides: Ignored overrides by place, one for each attribute removed.
        defaults_moved: Identity attributes that left a resource.
        invalid: Identity attributes removed because of their value, on roots and resources.
        accepted: Spans that took an end user, metadata or a session from keys of other SDKs.
    """

    spans: int = 0
    roots: int = 0
    roots_with_identity: int = 0
    overrides: dict[Place, int] = field(default_factory=lambda: dict.fromkeys(Place, 0))
    defaults_moved: int = 0
    invalid: int = 0
    accepted: int = 0

    @property
    def overrides_total(self) -> int:
        """Ignored overrides of every place."""
        return sum(self.overrides.values())


@dataclass
class Enforced:
    """A request after the rule.

    Attributes:
        body: The enforced request. The very same object as the input where nothing had to change.
        counts: What was found and done.
        overrides: At most `MAX_REPORTED_OVERRIDES` descriptions, in the order of the request.
        overrides_not_reported: How many more there were.
    """

    body: bytes
    counts: Counts
    overrides: list[Override] = field(default_factory=list)
    overrides_not_reported: int = 0


def is_root_span(parent_span_id: bytes) -> bool:
    """Whether a span with this parent span id is a root span: the id is empty or all zero bytes, of any length."""
    return not parent_span_id.strip(b"\0")


def is_entry_span(parent_span_id: bytes, flags: int) -> bool:
    """Whether a span is a child whose parent is known to be remote.

    Args:
        parent_span_id: As on the wire.
        flags: OTLP `Span.flags`, 32 bits: 0x100 says that 0x200 means something, 0x200 that the parent is remote
            (https://github.com/open-telemetry/opentelemetry-proto, `SpanFlags`).
    """
    return flags & 0x300 == 0x300 and not is_root_span(parent_span_id)


def names_somebody(end_user_id: str) -> bool:
    """Whether an end-user id says who it is: empty and blank mean that there is no identity."""
    return bool(end_user_id.strip())
