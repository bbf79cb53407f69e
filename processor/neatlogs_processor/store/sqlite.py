"""The store as a destination: one thread that writes, for as many requests as are waiting, and cleans up in between.

While one transaction is on its way to the disk, what arrives gathers into the next: an fsync serves every request that
waits for one. A request is acknowledged after its transaction is on the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from neatlogs_processor.core.backoff import overload_delay
from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.request import Request
from neatlogs_processor.errors import StoreUnavailableError
from neatlogs_processor.store.answers import response
from neatlogs_processor.store.files import BUSY_SECONDS, size_on_disk
from neatlogs_processor.store.retention import STEP_SPANS, Limits, Pruned
from neatlogs_processor.store.writer import Outcome, Writer
from neatlogs_processor.telemetry import Seldom, Telemetry, logger

GROUP_REQUESTS: Final = 64
GROUP_BYTES: Final = 16 * 2**20
"""A transaction takes no more than this: those who wait for it should not wait for a second."""

TIDY_SECONDS: Final = 30.0
"""How often a quiet store looks for traces that have become too old."""

TROUBLE_SECONDS: Final = 10.0
"""How long a refusal makes the store look troubled while nothing is written: nobody may come to try again."""

_MINUTE: Final = 60.0


# Each is itself and equal to no other: one that is given up is looked for among those that wait.
@dataclass(eq=False)
class _Waiting:
    request: Request
    future: asyncio.Future[bytes]


class Store:
    """Keeps the traces of requests, from `start` to `close`.

    Args:
        path: The file; made where it does not exist.
        policy: What the rule was told.
        limits: How much is kept.
        telemetry: Counts and logs.
        chance: Returns a random number, 0 <= chance < 1.
        clock: Returns nanoseconds since the epoch.
        monotonic: Returns seconds; decides how long trouble is remembered.
        patience: Seconds for which a request waits for another process that writes.
    """

    def __init__(
        self,
        path: Path,
        *,
        policy: EndUserPolicy,
        limits: Limits,
        telemetry: Telemetry,
        chance: Callable[[], float],
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        patience: float = BUSY_SECONDS,
    ) -> None:
        self._path = path
        self._policy = policy
        self._limits = limits
        self._telemetry = telemetry
        self._chance = chance
        self._clock = clock
        self._monotonic = monotonic
        self._patience = patience
        self._seldom = Seldom(time.monotonic, again=_MINUTE)
        self._condition = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._closing = False
        self._prunes = True
        self._thread: threading.Thread | None = None
        # The last refusal, and when it was; nothing after something was written.
        self._refusal: tuple[str, float] | None = None

    def start(self) -> None:
        """Open the file and begin. To be called in the event loop that sends.

        Raises:
            ConfigError: The file cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        self._writer = Writer(
            self._path,
            policy=self._policy,
            limits=self._limits,
            clock=self._clock,
            monotonic=self._monotonic,
            patience=self._patience,
            unavailable=self._unavailable,
        )
        self._telemetry.gauges.store_bytes.read = lambda: size_on_disk(self._path)
        self._thread = threading.Thread(target=self._work, name="neatlogs-store", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str:
        """Why the store refuses what comes; empty where it does not."""
        if self._refusal is None:
            return ""
        cause, when = self._refusal
        return cause if self._monotonic() - when < TROUBLE_SECONDS else ""

    @property
    def waiting(self) -> int:
        """How many requests nobody has begun to write."""
        return len(self._waiting)

    async def send(self, request: Request) -> bytes:
        """Keep the spans of a trace request, those that are there already excepted.

        Returns:
            An `ExportTraceServiceResponse`: with a `partial_success` where spans have no id and cannot be kept.

        Raises:
            MalformedOtlpError: Protobuf cannot read the request.
            StoreUnavailableError: It was not kept, and may be later: no room, or another process holds the store.
        """
        one = _Waiting(request, self._loop.create_future())
        with self._condition:
            if self._closing or self._thread is None:
                raise self._unavailable("it is closed")
            self._waiting.append(one)
            self._condition.notify()
        try:
            return await one.future
        except asyncio.CancelledError:
            # Whoever counts the bytes in flight does not count these any more.
            with self._condition, contextlib.suppress(ValueError):
                self._waiting.remove(one)
            raise

    async def close(self) -> None:
        """Write what is waiting, and close the file."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        group: list[_Waiting] = []
        try:
            while (found := self._next_group()) is not None:
                group = found
                written = self._write(group) if group else 0
                # At twice the pace of what comes in, so that it catches up under any load.
                self._tidy(max(STEP_SPANS, 2 * written))
        except Exception as error:  # noqa: BLE001  # nobody may wait for a thread that has ended
            with self._condition:
                self._closing = True
                group = [*group, *self._waiting]
                self._waiting.clear()
            self._loop.call_soon_threadsafe(self._broken, error, group)
        finally:
            self._writer.close()

    def _next_group(self) -> list[_Waiting] | None:
        """Wait for requests. None of them: there is time to tidy up. `None`: the end."""
        with self._condition:
            if not self._waiting and not self._closing and not self._prunes:
                self._condition.wait(TIDY_SECONDS)
            if not self._waiting:
                return None if self._closing else []
            group: list[_Waiting] = []
            size = 0
            while self._waiting and len(group) < GROUP_REQUESTS and size < GROUP_BYTES:
                size += len(self._waiting[0].request.body)
                group.append(self._waiting.popleft())
            return group

    def _write(self, group: list[_Waiting]) -> int:
        outcome = self._writer.write([one.request for one in group])
        self._loop.call_soon_threadsafe(self._settle, group, outcome)
        return outcome.written.spans

    def _tidy(self, spans: int) -> None:
        try:
            pruned = self._writer.tidy(spans)
        except sqlite3.Error as error:
            self._prunes = False
            self._loop.call_soon_threadsafe(self._prune_failed, str(error))
            return
        self._prunes = pruned.more
        if pruned.traces:
            self._loop.call_soon_threadsafe(self._pruned, pruned)

    def _unavailable(self, cause: str) -> StoreUnavailableError:
        return StoreUnavailableError(f"the store did not take it: {cause}", retry_after=overload_delay(self._chance()))

    # What follows runs in the event loop, because counters and futures live there.

    def _settle(self, group: list[_Waiting], outcome: Outcome) -> None:
        counter = self._telemetry.counters.store_spans
        counter.add(outcome.written.spans, "written")
        counter.add(outcome.written.duplicates, "duplicate")
        for one, answer in zip(group, outcome.answers, strict=True):
            if isinstance(answer, int):
                self._refusal = None
                counter.add(answer, "without_id")
            elif isinstance(answer, StoreUnavailableError):
                self._refusal = str(answer), self._monotonic()
            if one.future.done():
                # The client has gone.
                continue
            if isinstance(answer, int):
                one.future.set_result(response(answer))
            else:
                one.future.set_exception(answer)

    def _broken(self, error: Exception, group: list[_Waiting]) -> None:
        self._telemetry.failed(error)
        logger.error("the store has stopped because of a bug; restart the processor")
        cause = self._unavailable("it has stopped because of a bug; restart the processor")
        self._refusal = str(cause), float("inf")
        for one in group:
            if not one.future.done():
                one.future.set_exception(cause)

    def _pruned(self, pruned: Pruned) -> None:
        cause = "age" if pruned.by_age else "size"
        self._telemetry.counters.store_pruned.add(pruned.spans, cause)
        if self._seldom.allows(cause):
            logger.info(
                "the store lets its oldest traces go (--store-max-%s); the pruned spans are counted by cause", cause
            )

    def _prune_failed(self, error: str) -> None:
        if self._seldom.allows("prune failed"):
            logger.warning("the store could not be cleaned up: %s; it is tried again%s", error, self._seldom.skipped())
