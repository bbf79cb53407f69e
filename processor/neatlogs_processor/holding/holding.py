"""Holds spans on the disk until the root of their trace arrives, and sends them on with its identity.

A sender (see `neatlogs_processor.exporters.sender.Sender`) in front of the durable queue:

    request -> sort -> root known, or no trace id -> [stamp] ----------------------------> onward -> OK
                    -> root awaited -> commit ------------------------------------------------------> OK
                                         |
                                         +-> root arrived, time or room is over -> stamp -> onward -> delete

What was acknowledged is on the disk: in the file here, or in the queue. A fragment leaves the file only after the queue
has it, so that a crash in between delivers it twice and never loses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from neatlogs_processor.beside import beside
from neatlogs_processor.core.backoff import overload_delay
from neatlogs_processor.core.policy import Counts, EndUserPolicy, Enforced
from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.core.sought import Sought
from neatlogs_processor.core.stamping import INHERITED
from neatlogs_processor.errors import OverloadedError, ProcessorError
from neatlogs_processor.holding.events import HoldingEvents
from neatlogs_processor.holding.file import DamagedError, holding_file_in
from neatlogs_processor.holding.memory import Leaving, Roots, Shelf
from neatlogs_processor.holding.rows import Held, Root, fragment_of
from neatlogs_processor.holding.sorting import LARGEST_REQUEST, Sorted, join, sort_request
from neatlogs_processor.holding.writer import DiskFullError, HoldingWriter

T = TypeVar("T")

REMEMBERED_SECONDS: Final = 3600.0
"""How long a root is remembered at most, so that ids of end users do not stay on the disk for ever."""

_BESIDE_BYTES: Final = 128 * 1024
"""Requests that are larger are worked on beside the event loop: they must not keep others waiting."""

_BREATH_SECONDS: Final = 1.0


@dataclass(frozen=True)
class HoldingLimits:
    """How long spans wait, and how many.

    Attributes:
        wait: Seconds.
        max_spans: Spans that wait; beyond, the oldest go on as they are. Of what may go on and finds the queue full, as
            much again is kept.
        max_bytes: Their bytes; likewise.
        max_memory: Bytes of memory for roots that have gone on.
        max_pages: Pages of the file; `None` leaves it to the disk.
    """

    wait: float
    max_spans: int
    max_bytes: int
    max_memory: int
    max_pages: int | None = None


class Holding:
    """Makes the spans of a trace inherit the identity of its root. Must be made where the event loop runs.

    Args:
        directory: The queue's directory, which this process holds.
        onward: Puts a request into the queue: returns when it is on the disk there, or raises `ProcessorError`.
        inherits: Whether spans wait. Otherwise what an earlier run left goes on, and that is all; nothing is sent here.
        policy: The policy of the rule.
        limits: How long, and how many.
        events: Counts and logs.
        chance: Returns a random number, 0 <= chance < 1.
        keys: The attributes of a root that the other spans inherit.
        wall: Returns seconds since the epoch; read once.
        monotonic: Returns seconds, never backwards.

    Raises:
        ProcessorError: The disk does not let us.
    """

    def __init__(
        self,
        directory: Path,
        onward: Callable[[Request], Awaitable[bytes]],
        *,
        inherits: bool = True,
        policy: EndUserPolicy,
        limits: HoldingLimits,
        events: HoldingEvents,
        chance: Callable[[], float],
        keys: Sought = INHERITED,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._onward = onward
        self._inherits = inherits
        self._policy = policy
        self._limits = limits
        self._events = events
        self._chance = chance
        self._keys = keys
        self._monotonic = monotonic
        # Times on the disk are of the wall clock; one that jumps while the processor runs ends no waiting.
        self._offset = wall() - monotonic()
        self._shelf = Shelf()
        self._roots = Roots(limits.max_memory)
        # Of each trace, how many fragments are on their way to the disk.
        self._arriving: Counter[bytes] = Counter()
        path = holding_file_in(directory)
        try:
            self._writer = HoldingWriter(path, on_salvage=events.salvaged, max_pages=limits.max_pages)
        except (sqlite3.Error, OSError, DamagedError) as error:
            raise ProcessorError(f"--queue-dir: {path} cannot be opened ({error})") from None
        if self._writer.salvaged is not None:
            events.salvaged(self._writer.salvaged)
        self._last_id = self._load()
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def spans(self) -> int:
        """Spans on the disk."""
        return self._shelf.spans

    @property
    def size(self) -> int:
        """Their bytes."""
        return self._shelf.size

    @property
    def traces(self) -> int:
        """Traces whose root is awaited."""
        return self._shelf.traces

    @property
    def roots(self) -> int:
        """Roots that are remembered."""
        return len(self._roots)

    @property
    def full(self) -> bool:
        """Whether requests are refused because what may go on finds no room."""
        return self._shelf.is_clogged(self._limits.max_spans, self._limits.max_bytes)

    def start(self) -> None:
        """Begin to send on."""
        self._events.resumed(self._shelf.spans, self._shelf.traces, inherits=self._inherits)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Finish what is being sent on, and close the file. What remains stays in it."""
        self._stopping.set()
        self._wake.set()
        if self._task is not None:
            await self._task
        await self._writer.close(remove=not self._inherits and not self._shelf.spans)
        self._events.remaining(self._shelf.spans)

    async def send(self, request: Request) -> bytes:
        """Send a request on, or part of it, and keep the spans that wait; see `Sender.send`.

        Returns:
            An empty response (a complete success), after all of the request is on the disk.

        Raises:
            OverloadedError: There is no room, or the disk fails. The request may come again.
            ProcessorError: The queue refuses.
        """
        if request.signal is not Signal.TRACES:
            return await self._onward(request)
        if self.full:
            raise self._refusal("spans that waited for their roots find no room in the queue (--queue-max-bytes)")
        body = request.body
        found = await _beside(len(body), partial(sort_request, body, self._policy, self._keys, self._roots.get))
        # First of all, because the queue may be full: what is kept here would be kept again each time it comes.
        for ready, spans in found.ready:
            await self._onward(_outgoing(ready, spans, request))
        self._events.went_on(found.outcomes)
        await self._keep(found)
        return b""

    async def _keep(self, found: Sorted) -> None:
        """Keep what waits, and the roots that somebody waits for."""
        now = self._now()
        learned = list(self._roots.learn(Root(trace_id, now, owner) for trace_id, owner in found.owners.items()))
        awaited: list[Root] = []
        others: list[Root] = []
        for one in learned:
            is_awaited = one.trace_id in self._arriving or self._shelf.waits_for(one.trace_id)
            (awaited if is_awaited else others).append(one)
            self._shelf.root_arrived(one.trace_id, one.owner)
        self._writer.remember(others)
        if learned:
            self._forget_roots()
            self._wake.set()
        if not found.held and not awaited:
            return
        first = self._last_id + 1
        self._last_id += len(found.held)
        fragments = [
            fragment_of(first + number, trace_id, now, spans, body)
            for number, (trace_id, (body, spans)) in enumerate(found.held.items())
        ]
        held = [one.held for one in fragments]
        self._arriving.update(one.trace_id for one in held)
        kept = self._writer.insert(fragments, awaited)
        kept.add_done_callback(partial(self._kept, held))
        try:
            # The commit takes place even where the client goes away meanwhile.
            await asyncio.shield(kept)
        except (DiskFullError, sqlite3.Error) as error:
            full = isinstance(error, DiskFullError)
            if full:
                self._events.disk_full()
            else:
                self._events.broken(error)
            # A root is known in memory, and those that waited for it make room by going on. Only a crash before they
            # have gone would cost them their end user.
            if held:
                raise self._refusal(f"the disk of --queue-dir {'is full' if full else 'does not work'}") from None

    def _kept(self, fragments: Iterable[Held], done: asyncio.Future[None]) -> None:
        for one in fragments:
            self._arriving[one.trace_id] -= 1
            if not self._arriving[one.trace_id]:
                del self._arriving[one.trace_id]
        # Asking for the error here also spares the loop a complaint where the client has gone.
        if done.cancelled() or done.exception() is not None:
            return
        for one in fragments:
            owner = self._roots.get(one.trace_id)
            if owner is None:
                self._shelf.wait(one)
            else:
                # It arrived while the disk was busy.
                self._shelf.leave(one, owner)
        self._events.evicted(self._shelf.evict(self._limits.max_spans, self._limits.max_bytes))
        self._wake.set()

    async def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            self._events.timed_out(self._shelf.time_out(self._now() - self._limits.wait))
            self._forget_roots()
            batch = self._shelf.next_to_leave(LARGEST_REQUEST)
            if not batch:
                await _within(self._pause(), self._wake.wait())
                continue
            try:
                await self._send_on(batch)
            except sqlite3.Error as error:
                self._events.broken(error)
                await _within(_BREATH_SECONDS, self._stopping.wait())
            except Exception as error:  # noqa: BLE001  # a bug must not end the sending on
                self._events.bug(error)
                await _within(_BREATH_SECONDS, self._stopping.wait())

    async def _send_on(self, batch: Sequence[Leaving]) -> None:
        bodies = await self._writer.bodies([one.held for one in batch])
        fragments = [
            (body, one.held.spans, one.attributes) for one, body in zip(batch, bodies, strict=True) if body is not None
        ]
        size = sum(len(body) for body, _, _ in fragments)
        for body, spans in await _beside(size, partial(join, fragments)):
            if not await self._insist(_outgoing(body, spans)):
                return
        outcomes: Counter[str] = Counter()
        damaged = 0
        for one, found in zip(batch, bodies, strict=True):
            if found is None:
                damaged += one.held.spans
            else:
                outcomes[one.outcome] += one.held.spans
        self._events.went_on(outcomes)
        if damaged:
            self._events.damaged(damaged)
        self._shelf.left(len(batch))
        self._writer.delete(one.held.id for one in batch)

    async def _insist(self, request: Request) -> bool:
        """Put a request into the queue, as often as it takes; say whether that came to pass before the end."""
        while True:
            try:
                await self._onward(request)
            except ProcessorError as error:  # noqa: PERF203  # seldom, and there is time
                delay = error.retry_after if isinstance(error, OverloadedError) else _BREATH_SECONDS
                self._events.put_off(error, delay)
                await _within(delay, self._stopping.wait())
                if self._stopping.is_set():
                    return False
            else:
                return True

    def _load(self) -> int:
        """Take up what an earlier run left; return the highest id."""
        fragments, roots = self._writer.loaded()
        now, last_id = self._now(), 0
        # A wall clock that was put back must not make a root be remembered for longer.
        for _ in self._roots.learn(one._replace(learned=min(one.learned, now)) for one in roots):
            pass
        for held in fragments:
            last_id = held.id
            owner = self._roots.get(held.trace_id)
            if owner is not None:
                self._shelf.leave(held, owner)
            else:
                # Nor make a fragment wait for longer.
                self._shelf.wait(held._replace(arrived=min(held.arrived, now)))
        return last_id

    def _forget_roots(self) -> None:
        forgotten = self._roots.forget(self._now() - REMEMBERED_SECONDS)
        if forgotten:
            self._writer.forget(forgotten)

    def _pause(self) -> float:
        """Seconds until something happens by itself."""
        oldest = self._shelf.oldest
        return 60.0 if oldest is None else max(0.0, oldest + self._limits.wait - self._now()) + 0.001

    def _now(self) -> float:
        return self._offset + self._monotonic()

    def _refusal(self, message: str) -> OverloadedError:
        return OverloadedError(message, retry_after=overload_delay(self._chance()))


def _outgoing(body: bytes, spans: int, request: Request | None = None) -> Request:
    """Return a request that goes on; the very same where nothing of it waits or was stamped."""
    if request is not None and body is request.body:
        return request
    enforced = Enforced(body, Counts(spans=spans))
    if request is None:
        return Request(Signal.TRACES, body, enforced=enforced)
    return replace(request, body=body, enforced=enforced)


async def _beside(size: int, work: Callable[[], T]) -> T:
    """Do some work on so many bytes, beside the event loop if they are many."""
    if size <= _BESIDE_BYTES:
        return work()
    return await beside(work)


async def _within(seconds: float, event: Awaitable[object]) -> None:
    """Wait for an event, for so long at most."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(event, seconds)
