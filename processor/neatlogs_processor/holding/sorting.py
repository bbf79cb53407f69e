"""What becomes of a request's spans: which go on at once, with or without their root's identity, and which wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.sought import Sought
from neatlogs_processor.core.span_heads import CHILD, ENTRY, Head
from neatlogs_processor.core.splitting import Apart, Group, Together
from neatlogs_processor.core.stamping import Owner, Stamp, read_owner
from neatlogs_processor.errors import MalformedOtlpError
from neatlogs_processor.holding.memory import EVICTED, NO_END_USER, STAMPED

ROOT: Final = "root"
NO_TRACE_ID: Final = "no_trace_id"

LARGEST_REQUEST: Final = 4_000_000
"""Bytes of one request that goes on: gRPC servers take 4 MiB unless they are told otherwise, and stamping adds some."""

MOST_TRACES: Final = 16_384
"""Traces of one request that may wait: of a request made of nothing but tiny spans the rest goes on at once."""

MOST_FRAME_BYTES: Final = 32 * 2**20
"""Bytes of resources and scopes that the traces of one request may repeat: each has its own copy. Likewise."""

_READ_ONCE_BYTES: Final = 256 * 1024
_MOST_STAMPS: Final = 4096


@dataclass(frozen=True)
class Sorted:
    """A request after it was sorted.

    Attributes:
        ready: Requests that go on at once, and how many spans each has. The request itself, the very same object, where
            all of it goes on as it is.
        held: For each trace whose root is awaited, its spans as a request of its own, and how many they are.
        owners: For each trace of which a root is in the request, the one that speaks for it.
        outcomes: How many spans go on at once, by what became of them.
    """

    ready: list[tuple[bytes, int]]
    held: dict[bytes, tuple[bytes, int]]
    owners: dict[bytes, Owner]
    outcomes: Counter[str]


def sort_request(body: bytes, policy: EndUserPolicy, keys: Sought, known: Callable[[bytes], Owner | None]) -> Sorted:
    """Sort the spans of a request.

    Args:
        body: The request after the rule.
        policy: The policy of the rule.
        keys: The attributes that children inherit.
        known: Returns the owner of a trace whose root has gone on before. It may be called from another thread.
    """
    apart = Apart(body, policy)
    # Read once where the memory allows; a huge request may consist of tiny spans.
    groups: Iterable[Group] = list(apart) if len(body) <= _READ_ONCE_BYTES else apart
    owners = _owners(groups, policy, keys)
    speaks = {trace_id: _smaller(known(trace_id), owner) for trace_id, owner in owners.items()}
    stamps: dict[bytes, Stamp] = {}
    ready, held = Together(LARGEST_REQUEST), _ByTrace(MOST_FRAME_BYTES + len(body))
    outcomes: Counter[str] = Counter()
    unchanged = True
    for group in groups:
        for head, span in group.spans:
            trace_id, rank, _, _ = head
            if rank == CHILD and trace_id:
                owner = speaks.get(trace_id) or known(trace_id)
                if owner is None:
                    if held.add(trace_id, group, span):
                        unchanged = False
                        continue
                    outcome = EVICTED
                elif owner.attributes:
                    outcome = STAMPED
                    stamp = stamps.get(trace_id)
                    if stamp is None:
                        if len(stamps) == _MOST_STAMPS:
                            stamps.clear()
                        stamp = stamps[trace_id] = Stamp(owner.attributes)
                    before, span = span, stamp.on(span)
                    unchanged = unchanged and span is before
                else:
                    outcome = NO_END_USER
            else:
                outcome = ROOT if trace_id else NO_TRACE_ID
            outcomes[outcome] += 1
            ready.add(group.resource, group.scope, span)
    if unchanged:
        return Sorted([(body, outcomes.total())], {}, owners, outcomes)
    return Sorted(_with_rest(ready.bodies(), apart.rest), held.bodies(), owners, outcomes)


def join(fragments: Sequence[tuple[bytes, int, bytes]]) -> list[tuple[bytes, int]]:
    """Put held fragments together into requests that go on.

    Args:
        fragments: The spans of each, as they were held, how many they are, and the attributes that they inherit,
            encoded.

    Returns:
        The requests, and how many spans each has.
    """
    together = Together(LARGEST_REQUEST)
    unreadable: list[tuple[bytes, int]] = []
    for body, count, attributes in fragments:
        try:
            stamp = Stamp(attributes)
            spans = [
                (resource, scope, stamp.on(span))
                for resource, scope, payloads in Apart(body, EndUserPolicy()).without_heads()
                for span in payloads
            ]
        except MalformedOtlpError:
            # It was sound when it was held. Whatever it is now, it must not keep the others waiting for ever.
            unreadable.append((body, count))
            continue
        for resource, scope, span in spans:
            together.add(resource, scope, span)
    return together.bodies() + unreadable


class _ByTrace:
    """Spans that wait, by trace.

    Args:
        most_frame_bytes: Bytes of all their resources and scopes together.
    """

    def __init__(self, most_frame_bytes: int) -> None:
        self._traces: dict[bytes, Together] = {}
        self._room = most_frame_bytes

    def add(self, trace_id: bytes, group: Group, span: bytes) -> bool:
        """Add a span, and say whether there was room for its trace."""
        together = self._traces.get(trace_id)
        if together is None:
            if len(self._traces) == MOST_TRACES:
                return False
            together = Together(limit=_NO_LIMIT)
        frame = together.frame_bytes(group.resource, group.scope)
        if frame > self._room:
            return False
        self._room -= frame
        self._traces[trace_id] = together
        together.add(group.resource, group.scope, span)
        return True

    def bodies(self) -> dict[bytes, tuple[bytes, int]]:
        """Return the spans of each trace as a request, and how many they are."""
        return {trace_id: together.bodies()[0] for trace_id, together in self._traces.items()}


_NO_LIMIT: Final = 2**62


def _owners(groups: Iterable[Group], policy: EndUserPolicy, keys: Sought) -> dict[bytes, Owner]:
    owners: dict[bytes, Owner] = {}
    for group in groups:
        for head, span in group.spans:
            if head.rank == CHILD or not head.trace_id:
                continue
            best = owners.get(head.trace_id)
            if best is None and len(owners) == MOST_TRACES:
                continue
            owner = read_owner(head, span, keys)
            if _settles(owner, head, group, policy):
                owners[head.trace_id] = _smaller(best, owner)
    return owners


def _settles(owner: Owner, head: Head, group: Group, policy: EndUserPolicy) -> bool:
    """Whether it need not be waited for another owner.

    Where entry spans own identity, a root of another service that names nobody is the load balancer's: the entry span
    is still to come.
    """
    return policy.roots == "trace" or head.rank == ENTRY or group.is_entry_service or bool(owner.attributes)


def _smaller(one: Owner | None, other: Owner) -> Owner:
    return one if one is not None and one.order <= other.order else other


def _with_rest(bodies: list[tuple[bytes, int]], rest: bytes) -> list[tuple[bytes, int]]:
    if not rest:
        return bodies
    if not bodies:
        return [(rest, 0)]
    # Requests one behind the other are one request.
    (first, spans), *others = bodies
    return [(first + rest, spans), *others]
