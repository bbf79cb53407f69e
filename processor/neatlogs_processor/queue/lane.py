"""Delivers the queued requests of one signal: oldest first, several at a time, until the upstream has accepted them.

A request that fails is put off, longer each time, and the next one has its turn: no single request blocks the others.
When everything fails the upstream is down: then one request at a time is tried, at growing intervals, until one comes
through.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from neatlogs_processor.core.backoff import Backoff
from neatlogs_processor.core.policy import Enforced
from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.core.status import GrpcCode
from neatlogs_processor.errors import ExportError, ProcessorError
from neatlogs_processor.queue.reading import DamagedRowError
from neatlogs_processor.queue.rows import Entry

MAX_RETRY_AFTER = 300.0
"""Seconds: an upstream that asks for more is asked again after this."""

WINDOW = 128
"""How many requests are known ahead (without their bodies)."""

MAX_PUT_OFF = 1024
"""How many requests may be put off at a time before the lane waits for the first of them."""

OF_ONE_REQUEST = Backoff(initial=0.5, factor=2.0, maximum=60.0)
OF_THE_UPSTREAM = Backoff(initial=0.25, factor=2.0, maximum=10.0)

_OF_THE_CONFIGURATION = frozenset({GrpcCode.UNAUTHENTICATED, GrpcCode.PERMISSION_DENIED})
"""Refusals that say nothing about the request: with the right key the same bytes are accepted."""


Deliver = Callable[[Request], Awaitable[bytes]]
"""Sends a request once: returns the response, or raises `ProcessorError`."""


class Shelf(Protocol):
    """What a lane takes requests from, and tells what became of them."""

    async def waiting(self, signal: Signal, *, after: int, limit: int) -> list[Entry]:
        """Return the oldest requests with higher ids."""

    async def body(self, entry: Entry) -> tuple[bytes, Enforced | None] | None:
        """Return a request's content; `None` where it is not there any more. Raises `DamagedRowError`."""

    def delivered(self, entry: Entry, rejected: int) -> None:
        """The upstream accepted it, but for `rejected` of its items."""

    def failed(self, entry: Entry, error: Exception, delay: float) -> None:
        """It will be tried again."""

    def died(self, entry: Entry, outcome: str, error: Exception) -> None:
        """It will never be tried again."""

    def went_wrong(self, error: Exception) -> None:
        """Something failed that is not the upstream's fault: the disk, or a bug."""


@dataclass(frozen=True)
class LaneSettings:
    """How a lane delivers.

    Attributes:
        workers: How many requests are sent at the same time.
        timeout: Seconds that one try may take.
    """

    workers: int
    timeout: float


class Lane:
    """The deliveries of one signal.

    Args:
        signal: The signal.
        send: Sends a request once.
        shelf: Has the requests.
        settings: How it delivers.
        chance: Returns a random number, 0 <= chance < 1.
        clock: Returns seconds, never backwards.
    """

    def __init__(
        self,
        signal: Signal,
        send: Deliver,
        shelf: Shelf,
        settings: LaneSettings,
        *,
        chance: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._signal = signal
        self._send = send
        self._shelf = shelf
        self._settings = settings
        self._chance = chance
        self._clock = clock
        self._window: deque[Entry] = deque()
        self._put_off: list[tuple[float, int, Entry]] = []
        self._sending: dict[asyncio.Task[None], Entry] = {}
        self._loaded_up_to = 0
        self._more = True
        self._turn_of_put_off = True
        self._failures = 0
        self._pause_until = 0.0
        self._loading = False
        self._woken = False
        self._sleeper: asyncio.Future[None] | None = None
        self._stopping = False
        self._loop_task: asyncio.Task[None] | None = None

    @property
    def oldest(self) -> float | None:
        """When the oldest request that is known to wait, or that is being sent, arrived."""
        known = [entry.received for entry in self._sending.values()]
        known += [entry.received for _, _, entry in self._put_off]
        known += [self._window[0].received] if self._window else []
        return min(known, default=None)

    def is_sending(self, row_id: int) -> bool:
        """Say whether a request is on its way."""
        return any(entry.id == row_id for entry in self._sending.values())

    def start(self) -> None:
        """Begin to deliver."""
        self._loop_task = asyncio.create_task(self._run())

    def arrived(self, entry: Entry) -> None:
        """There is a new request on the shelf, newer than all that was there before."""
        if self._more or self._loading or len(self._window) >= WINDOW:
            self._more = True
        else:
            # Everything older is known, so the shelf need not be asked.
            self._window.append(entry)
            self._loaded_up_to = entry.id
        self._wake()

    def forget(self) -> None:
        """Look at the shelf anew: what is on it has changed. What is being sent stays known."""
        self._window.clear()
        self._put_off.clear()
        self._loaded_up_to = 0
        self._more = True
        self._wake()

    async def stop(self, grace: float) -> None:
        """End the waiting, let what is being sent finish for `grace` seconds, then cancel it; it stays on the shelf."""
        self._stopping = True
        self._wake()
        if self._loop_task is not None:
            await self._loop_task
        if self._sending:
            _, late = await asyncio.wait(self._sending, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _run(self) -> None:
        while not self._stopping:
            self._woken = False
            try:
                delay = await self._begin_sending()
            except Exception as error:  # noqa: BLE001  # the lane must outlive a disk that fails
                self._shelf.went_wrong(error)
                delay = 1.0
            await self._sleep(delay)

    async def _sleep(self, seconds: float | None) -> None:
        """Wait until somebody wakes the lane, for so long at most. (`asyncio.wait_for` makes a task each time.)"""
        if self._woken:
            return
        loop = asyncio.get_running_loop()
        self._sleeper = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, self._wake)
        try:
            await self._sleeper
        finally:
            self._sleeper = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        self._woken = True
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    async def _begin_sending(self) -> float | None:
        """Start as many deliveries as may be; return after how many seconds there may be more, if that is known."""
        while not self._stopping and len(self._sending) < self._allowed():
            pause = self._pause_until - self._clock()
            if pause > 0:
                return pause
            if not self._window and self._more and len(self._put_off) < MAX_PUT_OFF:
                await self._load()
                continue
            entry = self._next()
            if entry is None:
                return max(0.0, self._put_off[0][0] - self._clock()) if self._put_off else None
            task = asyncio.create_task(self._deliver(entry))
            self._sending[task] = entry
            task.add_done_callback(self._sent)
        return None

    def _allowed(self) -> int:
        return 1 if self._down else self._settings.workers

    @property
    def _down(self) -> bool:
        return self._failures >= self._settings.workers

    def _next(self) -> Entry | None:
        """Return the request whose turn it is: by turns one that was put off and is due, and the oldest fresh one."""
        due = bool(self._put_off) and self._put_off[0][0] <= self._clock()
        fresh = bool(self._window) and len(self._put_off) < MAX_PUT_OFF
        if due and (self._turn_of_put_off or not fresh):
            # Those that were put off are older; but if they always went first, enough of them would block the others.
            self._turn_of_put_off = False
            return heapq.heappop(self._put_off)[2]
        self._turn_of_put_off = True
        return self._window.popleft() if fresh else None

    async def _load(self) -> None:
        # Set before asking: what arrives meanwhile must not be overlooked.
        self._more = False
        asked_after = self._loaded_up_to
        self._loading = True
        try:
            found = await self._shelf.waiting(self._signal, after=asked_after, limit=WINDOW)
        except BaseException:
            self._more = True
            raise
        finally:
            self._loading = False
        if self._loaded_up_to != asked_after:
            # The shelf has changed meanwhile.
            self._more = True
            return
        self._more = self._more or len(found) == WINDOW
        if found:
            self._loaded_up_to = found[-1].id
            self._window.extend(entry for entry in found if not self.is_sending(entry.id))

    def _sent(self, task: asyncio.Task[None]) -> None:
        del self._sending[task]
        self._wake()

    async def _deliver(self, entry: Entry) -> None:
        try:
            await self._try(entry)
        except asyncio.CancelledError:
            raise
        except DamagedRowError as error:
            self._shelf.died(entry, "damaged", error)
        except ProcessorError as error:
            if error.retryable or _concerns_configuration(error):
                self._again(entry, error)
            else:
                # The upstream answers; it does not want this one.
                self._failures = 0
                self._shelf.died(entry, "rejected", error)
        except Exception as error:  # noqa: BLE001  # a bug, or the disk: nothing may be lost by it
            self._shelf.went_wrong(error)
            self._again(entry, error)

    async def _try(self, entry: Entry) -> None:
        content = await self._shelf.body(entry)
        if content is None:
            return
        body, enforced = content
        deadline = asyncio.get_running_loop().time() + self._settings.timeout
        request = Request(signal=entry.signal, body=body, deadline=deadline, enforced=enforced)
        response = await self._send(request)
        self._failures = 0
        self._pause_until = 0.0
        self._shelf.delivered(entry, rejected_items(response))

    def _again(self, entry: Entry, error: Exception) -> None:
        entry.attempts += 1
        # The message of a bug may quote a payload.
        entry.error = str(error) if isinstance(error, ProcessorError) else type(error).__name__
        retry_after = getattr(error, "retry_after", None)
        if retry_after is not None:
            retry_after = min(retry_after, MAX_RETRY_AFTER)
        now = self._clock()
        self._failures += 1
        if self._down or retry_after is not None:
            streak = max(1, self._failures - self._settings.workers + 1)
            pause = OF_THE_UPSTREAM.delay(streak, chance=self._chance(), retry_after=retry_after)
            self._pause_until = max(self._pause_until, now + pause)
        delay = OF_ONE_REQUEST.delay(entry.attempts, chance=self._chance(), retry_after=retry_after)
        heapq.heappush(self._put_off, (now + delay, entry.id, entry))
        self._shelf.failed(entry, error, delay)


def rejected_items(response: bytes) -> int:
    """Return how many items a response says were rejected. The three signals' responses are alike."""
    if not response:
        return 0
    try:
        answer = ExportTraceServiceResponse.FromString(response).partial_success
    except DecodeError:
        # The upstream accepted, whatever it wrote with it.
        return 0
    return max(0, answer.rejected_spans)


def _concerns_configuration(error: ProcessorError) -> bool:
    return isinstance(error, ExportError) and error.grpc_code in _OF_THE_CONFIGURATION
