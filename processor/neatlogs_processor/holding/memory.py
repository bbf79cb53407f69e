"""Which spans wait, which may go on, and which roots are remembered. Nothing here knows of disks, tasks or clocks."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from neatlogs_processor.core.stamping import Owner
from neatlogs_processor.holding.rows import Held, Root

STAMPED: Final = "stamped"
NO_END_USER: Final = "no_end_user"
TIMED_OUT: Final = "timed_out"
EVICTED: Final = "evicted"


class Leaving(NamedTuple):
    """A fragment that may go on.

    Attributes:
        held: The fragment.
        attributes: What its spans inherit, encoded; empty where they go on as they are.
        outcome: Why it may: `STAMPED`, `NO_END_USER`, `TIMED_OUT` or `EVICTED`.
    """

    held: Held
    attributes: bytes
    outcome: str


class Shelf:
    """The fragments on the disk: those that wait for their root, and those that may go on."""

    def __init__(self) -> None:
        # In the order of arrival. Not a plain dict: to look for the first one behind many that were taken out is slow.
        self._waiting: OrderedDict[int, Held] = OrderedDict()
        # Also of some that do not wait any more: one trace may have all of the fragments, and many have one.
        self._by_trace: dict[bytes, list[int]] = {}
        self._leaving: deque[Leaving] = deque()
        self._waiting_spans = self._waiting_size = 0
        self._leaving_spans = self._leaving_size = 0

    @property
    def spans(self) -> int:
        """How many spans there are."""
        return self._waiting_spans + self._leaving_spans

    @property
    def size(self) -> int:
        """Their bytes."""
        return self._waiting_size + self._leaving_size

    @property
    def traces(self) -> int:
        """Of how many traces the root is awaited."""
        return len(self._by_trace)

    def is_clogged(self, max_spans: int, max_size: int) -> bool:
        """Say whether more than so much may go on and does not."""
        return self._leaving_spans > max_spans or self._leaving_size > max_size

    @property
    def oldest(self) -> float | None:
        """When the fragment arrived that has waited for longest."""
        return next(iter(self._waiting.values())).arrived if self._waiting else None

    def waits_for(self, trace_id: bytes) -> bool:
        """Say whether a fragment waits for the root of this trace."""
        return trace_id in self._by_trace

    def wait(self, held: Held) -> None:
        """Let a fragment wait for its root. It has arrived later than all that wait already."""
        self._waiting[held.id] = held
        self._by_trace.setdefault(held.trace_id, []).append(held.id)
        self._waiting_spans += held.spans
        self._waiting_size += held.size

    def leave(self, held: Held, owner: Owner) -> None:
        """Let a fragment go on whose root is known."""
        self._leave(held, owner.attributes, STAMPED if owner.attributes else NO_END_USER)

    def root_arrived(self, trace_id: bytes, owner: Owner) -> None:
        """Let all fragments of a trace go on."""
        for one in self._by_trace.pop(trace_id, ()):
            held = self._waiting.pop(one, None)
            if held is not None:
                self._forget(held)
                self.leave(held, owner)

    def time_out(self, before: float) -> int:
        """Let fragments go on that arrived earlier than that; return how many spans they have."""
        spans = 0
        while self._waiting and next(iter(self._waiting.values())).arrived < before:
            spans += self._give_up(TIMED_OUT)
        return spans

    def evict(self, max_spans: int, max_size: int) -> int:
        """Let the oldest fragments go on until no more than so much waits; return how many spans they have."""
        spans = 0
        while self._waiting_spans > max_spans or self._waiting_size > max_size:
            spans += self._give_up(EVICTED)
        return spans

    def next_to_leave(self, max_size: int) -> list[Leaving]:
        """Return fragments that may go on, in order; at least one, if there is any, and more within so many bytes."""
        found: list[Leaving] = []
        size = 0
        for one in self._leaving:
            size += one.held.size
            if found and size > max_size:
                break
            found.append(one)
        return found

    def left(self, number: int) -> None:
        """Forget as many of the fragments that were next to leave."""
        for _ in range(number):
            held = self._leaving.popleft().held
            self._leaving_spans -= held.spans
            self._leaving_size -= held.size

    def _give_up(self, outcome: str) -> int:
        _, held = self._waiting.popitem(last=False)
        ids = self._by_trace[held.trace_id]
        middle = len(ids) // 2
        # The oldest is given up first, so the last one is the last.
        if ids[-1] == held.id:
            del self._by_trace[held.trace_id]
        elif ids[middle] == held.id:
            del ids[: middle + 1]
        self._forget(held)
        self._leave(held, b"", outcome)
        return held.spans

    def _forget(self, held: Held) -> None:
        self._waiting_spans -= held.spans
        self._waiting_size -= held.size

    def _leave(self, held: Held, attributes: bytes, outcome: str) -> None:
        self._leaving.append(Leaving(held, attributes, outcome))
        self._leaving_spans += held.spans
        self._leaving_size += held.size


class Roots:
    """Roots that have gone on, so that spans that come after them need not wait.

    Args:
        max_bytes: How much memory they may take; the oldest are forgotten first.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._roots: OrderedDict[bytes, Root] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._roots)

    def get(self, trace_id: bytes) -> Owner | None:
        """Return what the root of a trace gives to the other spans; `None` where no root is known."""
        root = self._roots.get(trace_id)
        return None if root is None else root.owner

    def learn(self, roots: Iterable[Root]) -> Iterator[Root]:
        """Remember roots; return those that speak for their traces now and did not before."""
        for root in roots:
            before = self._roots.get(root.trace_id)
            if before is not None:
                if before.owner.order <= root.owner.order:
                    continue
                self._drop(before)
            self._roots[root.trace_id] = root
            self._size += root.size
            yield root

    def forget(self, before: float) -> list[bytes]:
        """Forget roots that were learned earlier than that, and those that find no room; return their traces."""
        forgotten = []
        while self._roots:
            root = next(iter(self._roots.values()))
            if root.learned >= before and self._size <= self._max_bytes:
                break
            self._drop(root)
            forgotten.append(root.trace_id)
        return forgotten

    def _drop(self, root: Root) -> None:
        del self._roots[root.trace_id]
        self._size -= root.size
