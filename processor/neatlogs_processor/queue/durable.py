"""The durable queue: a sender that answers when the request is on the disk, and delivers it from there.

Delivery is at least once. A request leaves the queue when the upstream has accepted it, when the upstream has refused
it for good (it becomes a dead letter), or when it is older than a stated age; each is counted, none is silent.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from neatlogs_processor.core.backoff import overload_delay
from neatlogs_processor.core.policy import Enforced
from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.errors import OverloadedError, ProcessorError
from neatlogs_processor.queue.clock import QueueClock
from neatlogs_processor.queue.committer import Committer
from neatlogs_processor.queue.directory import QueueDirectory
from neatlogs_processor.queue.events import QueueEvents
from neatlogs_processor.queue.journal import SEGMENT_BYTES
from neatlogs_processor.queue.lane import Deliver, Lane, LaneSettings
from neatlogs_processor.queue.reading import DamagedError
from neatlogs_processor.queue.recovery import Recovery
from neatlogs_processor.queue.rows import Entry, Loss, Row, row_of
from neatlogs_processor.queue.stock import DiskFullError

FULL_SHARE = 0.95
"""The share of the cap from which on the queue is called full."""

FULL_SECONDS = 5.0
"""How long it is called full after it refused a request."""

BYTES_AT_HAND = 16 * 2**20
"""Bodies that are kept in memory until they are delivered, so that they need not be read back."""

_EXPIRE_AT_ONCE = 256


@dataclass(frozen=True)
class QueueLimits:
    """What the queue may hold.

    Attributes:
        max_bytes: Bytes of waiting requests.
        max_age: Seconds that a request may wait.
        max_dead_bytes: Bytes of dead letters; the oldest make room for new ones.
        max_pages: Pages of the database; `None` leaves it to the disk.
        segment_bytes: How large each of the journal's two files may become; 0 does without a journal.
    """

    max_bytes: int
    max_age: float
    max_dead_bytes: int
    max_pages: int | None = None
    segment_bytes: int = SEGMENT_BYTES


@dataclass(frozen=True)
class QueueState:
    """How the queue is at the moment.

    Attributes:
        requests: Requests that wait or are being sent.
        size: Their bytes.
        oldest_age: Seconds for which the oldest of them has waited; 0 where there is none.
        full: Whether new requests are, or soon will be, refused.
        dead_requests: Dead letters.
        dead_size: Their bytes.
    """

    requests: int
    size: int
    oldest_age: float
    full: bool
    dead_requests: int
    dead_size: int


class DurableQueue:
    """A sender (see `neatlogs_processor.exporters.sender.Sender`). Must be made where the event loop runs.

    Args:
        path: The directory, which must belong to the queue alone.
        deliver: Sends a request once: returns the response, or raises `ProcessorError`.
        limits: What it may hold.
        lanes: How each signal is delivered.
        events: Counts and logs.
        chance: Returns a random number, 0 <= chance < 1.
        wall: Returns seconds since the epoch.
        monotonic: Returns seconds, never backwards.

    Raises:
        ConfigError: The directory cannot be used, or another process holds it.
        ProcessorError: The disk does not let us.
    """

    def __init__(
        self,
        path: Path,
        deliver: Deliver,
        *,
        limits: QueueLimits,
        lanes: LaneSettings,
        events: QueueEvents,
        chance: Callable[[], float],
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._events = events
        self._chance = chance
        directory = QueueDirectory(path)
        try:
            self._committer = Committer(
                directory,
                on_recovery=self._recovered,
                max_pages=limits.max_pages,
                segment_bytes=limits.segment_bytes,
            )
        except (sqlite3.Error, OSError, DamagedError, DiskFullError) as error:
            directory.close()
            raise ProcessorError(f"--queue-dir: the queue in {path} cannot be opened ({error})") from None
        self._clock = QueueClock(self._committer.newest, wall=wall, monotonic=monotonic)
        self._monotonic = monotonic
        self._last_id = self._committer.last_id
        # Bytes of requests that are on their way to the disk.
        self._arriving = 0
        # Ids that left the queue and may be on the disk for another moment.
        self._gone: set[int] = set()
        # What waits and need not be read back from the disk.
        self._at_hand: dict[int, tuple[bytes, Enforced | None]] = {}
        self._bytes_at_hand = 0
        self._refused_at: float | None = None
        self._lanes = {signal: Lane(signal, deliver, self, lanes, chance=chance, clock=monotonic) for signal in Signal}
        self._sweeper: asyncio.Task[None] | None = None
        for recovery in self._committer.recoveries:
            events.recovered(recovery)

    @property
    def state(self) -> QueueState:
        """How the queue is at the moment."""
        oldest = min((lane.oldest for lane in self._lanes.values() if lane.oldest is not None), default=None)
        refused = self._refused_at is not None and self._monotonic() - self._refused_at < FULL_SECONDS
        totals = self._committer.totals
        return QueueState(
            requests=totals.requests,
            size=totals.size,
            oldest_age=0.0 if oldest is None else max(0.0, self._clock.now() - oldest),
            full=refused or totals.size >= FULL_SHARE * self._limits.max_bytes,
            dead_requests=totals.dead_requests,
            dead_size=totals.dead_size,
        )

    def start(self) -> None:
        """Begin to deliver, first of all what an earlier run left."""
        self._events.resumed(self._committer.totals)
        for lane in self._lanes.values():
            lane.start()
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self, grace: float) -> None:
        """End the waiting, let deliveries finish for `grace` seconds, and close the file. What remains stays in it."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await asyncio.gather(*(lane.stop(grace) for lane in self._lanes.values()))
        await self._committer.close()
        self._events.remaining(self._committer.totals)

    async def send(self, request: Request) -> bytes:
        """Keep the request; see `Sender.send`.

        Returns:
            An empty response (a complete success), after the request is on the disk.

        Raises:
            OverloadedError: There is no room, or the disk fails. The request may come again.
        """
        self._last_id += 1
        row = row_of(request, self._last_id, self._clock.now())
        if self._committer.totals.size + self._arriving + row.size > self._limits.max_bytes:
            raise self._refuse("the queue is full (--queue-max-bytes)")
        self._arriving += row.size
        try:
            # The commit takes place even where the client goes away meanwhile.
            await self._committer.keep(row, lambda error: self._kept(row, request.enforced, error))
        except DiskFullError:
            self._events.disk_full()
            raise self._refuse("the queue's disk is full") from None
        except (sqlite3.Error, OSError) as error:
            self._events.broken(error)
            raise self._refuse("the queue's disk does not work") from None
        return b""

    # What the lanes ask for and tell.

    async def waiting(self, signal: Signal, *, after: int, limit: int) -> list[Entry]:
        """See `Shelf`."""
        return await self._committer.read(lambda here: here.waiting(signal, after=after, limit=limit))

    async def body(self, entry: Entry) -> tuple[bytes, Enforced | None] | None:
        """See `Shelf`."""
        if entry.id in self._gone:
            return None
        if (content := self._at_hand.get(entry.id)) is not None:
            return content
        return await self._committer.read(lambda here: here.body(entry.id))

    def delivered(self, entry: Entry, rejected: int) -> None:
        """See `Shelf`."""
        self._events.delivered(entry, rejected)
        self._delete([entry])

    def failed(self, entry: Entry, error: Exception, delay: float) -> None:
        """See `Shelf`."""
        self._events.failed(entry, error, delay)
        attempts, text = entry.attempts, entry.error
        self._committer.write_soon(lambda here: here.note(entry.id, attempts, text))

    def died(self, entry: Entry, outcome: str, error: Exception) -> None:
        """See `Shelf`."""
        self._events.died(entry, outcome, error)
        self._gone.add(entry.id)
        self._let_go(entry.id)
        attempts, text, limit = entry.attempts + 1, f"{outcome}: {error}", self._limits.max_dead_bytes
        buried = self._committer.write_soon(lambda here: here.bury(entry.id, attempts, text, max_bytes=limit))
        buried.add_done_callback(lambda done: self._buried(entry.id, done))

    def went_wrong(self, error: Exception) -> None:
        """See `Shelf`."""
        if isinstance(error, (sqlite3.Error, OSError)):
            self._events.broken(error)
        else:
            self._events.bug(error)

    # What happens by itself.

    async def _sweep(self) -> None:
        """Drop what is too old."""
        period = max(0.05, min(60.0, self._limits.max_age / 20))
        while True:
            if not await self._expire():
                await asyncio.sleep(period)

    async def _expire(self) -> bool:
        """Drop some of what is too old, but nothing that is being sent; say whether there was anything."""
        before = self._clock.now() - self._limits.max_age
        try:
            found = await self._committer.read(lambda here: here.older(before, limit=_EXPIRE_AT_ONCE))
        except (sqlite3.Error, OSError, DamagedError) as error:
            self._events.broken(error)
            return False
        old = [
            entry
            for entry in found
            if entry.id not in self._gone and not self._lanes[entry.signal].is_sending(entry.id)
        ]
        loss = Loss()
        for entry in old:
            loss.add(entry)
        self._events.expired(loss)
        self._delete(old)
        return bool(old)

    def _kept(self, row: Row, enforced: Enforced | None, error: Exception | None) -> None:
        self._arriving -= row.size
        if error is not None:
            return
        if self._bytes_at_hand + len(row.body) <= BYTES_AT_HAND:
            self._at_hand[row.id] = row.body, enforced
            self._bytes_at_hand += len(row.body)
        self._lanes[row.signal].arrived(Entry(row.id, row.signal, row.received, row.spans, row.size))

    def _let_go(self, row_id: int) -> None:
        content = self._at_hand.pop(row_id, None)
        if content is not None:
            self._bytes_at_hand -= len(content[0])

    def _refuse(self, message: str) -> OverloadedError:
        self._refused_at = self._monotonic()
        return OverloadedError(message, retry_after=overload_delay(self._chance()))

    def _delete(self, entries: Iterable[Entry]) -> None:
        ids = [entry.id for entry in entries]
        self._gone.update(ids)
        for row_id in ids:
            self._let_go(row_id)
        deleted = self._committer.write_soon(lambda here: here.delete(ids))
        deleted.add_done_callback(lambda _: self._gone.difference_update(ids))

    def _buried(self, row_id: int, done: asyncio.Future[Loss]) -> None:
        self._gone.discard(row_id)
        if not done.cancelled():
            self._events.dead_letters_dropped(done.result())

    def _recovered(self, recovery: Recovery) -> None:
        self._events.recovered(recovery)
        for lane in self._lanes.values():
            lane.forget()
