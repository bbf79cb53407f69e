"""ClickHouse as a destination: requests gather for a second, go in together, and are acknowledged when they are there.

Many small inserts are what costs a ClickHouse server most, so a thread of its own gathers first; while one group is on
its way the next one gathers. A server that cannot be reached when the processor starts is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from neatlogs_processor.core.backoff import overload_delay
from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.request import Request
from neatlogs_processor.errors import ConfigError, ProcessorError, StoreUnavailableError
from neatlogs_processor.store.answers import response
from neatlogs_processor.store.clickhouse.connection import ClickHouseError, ClickHouseLogin
from neatlogs_processor.store.clickhouse.writing import ClickHouseWriter, Outcome
from neatlogs_processor.telemetry import Telemetry, logger

GROUP_SPANS: Final = 50_000
GROUP_BYTES: Final = 64 * 2**20
"""A group with as many waits no longer."""

LOOK_SECONDS: Final = 5.0
"""How often a server that did not answer is asked again while nothing comes in."""


@dataclass(eq=False)
class _Waiting:
    request: Request
    future: asyncio.Future[bytes]

    @property
    def spans(self) -> int:
        enforced = self.request.enforced
        return 0 if enforced is None else enforced.counts.spans


class ClickHouseStore:
    """Keeps the traces of requests, from `start` to `close`.

    Args:
        login: Where, and how to get in.
        policy: What the rule was told.
        batch_time: For how many seconds requests gather.
        most_requests: How many there can be at the same time. When half of them wait, waiting longer would gather less:
            those who wait for an answer send nothing.
        telemetry: Counts and logs.
        chance: Returns a random number, 0 <= chance < 1.
        clock: Returns nanoseconds since the epoch.
    """

    def __init__(
        self,
        login: ClickHouseLogin,
        *,
        policy: EndUserPolicy,
        batch_time: float,
        most_requests: int,
        telemetry: Telemetry,
        chance: Callable[[], float],
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._login = login
        self._batch_time = batch_time
        self._enough = max(1, most_requests // 2)
        self._telemetry = telemetry
        self._chance = chance
        self._writer = ClickHouseWriter(login, policy=policy, clock=clock, unavailable=self._unavailable)
        self._condition = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._closing = False
        self._hurried = False
        self._thread: threading.Thread | None = None
        # Why the last thing that was tried did not work; empty where it did. Only the thread writes it.
        self._trouble = ""

    def start(self) -> None:
        """Look at the database, and begin. To be called in the event loop that sends.

        A server that cannot be reached is no reason not to start: what comes is refused until it answers.

        Raises:
            ConfigError: The database has not got the tables, or they cannot be used; or its user is not let in.
        """
        self._loop = asyncio.get_running_loop()
        try:
            self._writer.check()
        except ConfigError:
            self._writer.close()
            raise
        except ClickHouseError as error:
            if error.is_about_setup:
                self._writer.close()
                raise ConfigError(f"--store: {error}") from None
            self._trouble = str(error)
            logger.warning("the store: %s; what comes is refused until that changes", error)
        self._thread = threading.Thread(target=self._work, name="neatlogs-store", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str:
        """Why the store refuses what comes; empty where it does not."""
        return self._trouble

    @property
    def waiting(self) -> int:
        """How many requests nobody has begun to write."""
        return len(self._waiting)

    async def send(self, request: Request) -> bytes:
        """Keep the spans of a trace request.

        Returns:
            An `ExportTraceServiceResponse`: with a `partial_success` where spans have no id and cannot be kept.

        Raises:
            MalformedOtlpError: Protobuf cannot read the request, or the server refuses its rows.
            StoreUnavailableError: It was not kept, and may be later.
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

    def hurry(self) -> None:
        """Write what waits, and what still comes, without gathering: whoever is about to stop waits for no more."""
        with self._condition:
            self._hurried = True
            self._condition.notify()

    async def close(self) -> None:
        """Write what is waiting, and close the connections."""
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
                if group:
                    self._write(group)
                else:
                    self._look()
        except Exception as error:  # noqa: BLE001  # nobody may wait for a thread that has ended
            with self._condition:
                self._closing = True
                group = [*group, *self._waiting]
                self._waiting.clear()
            self._trouble = "it has stopped because of a bug; restart the processor"
            self._loop.call_soon_threadsafe(self._broken, error, group)
        finally:
            self._writer.close()

    def _next_group(self) -> list[_Waiting] | None:
        """Wait for requests, and for others to come beside them. None of them: the server is to be asked whether it is
        there. `None`: the end."""
        with self._condition:
            while not self._waiting:
                if self._closing:
                    return None
                if not self._condition.wait(LOOK_SECONDS if self._trouble else None):
                    return []
            end = time.monotonic() + self._batch_time
            while not self._closing and not self._is_full() and (left := end - time.monotonic()) > 0:
                self._condition.wait(left)
            group: list[_Waiting] = []
            spans = size = 0
            while self._waiting and spans < GROUP_SPANS and size < GROUP_BYTES:
                one = self._waiting.popleft()
                group.append(one)
                spans += one.spans
                size += len(one.request.body)
            return group

    def _is_full(self) -> bool:
        if self._hurried or len(self._waiting) >= self._enough:
            return True
        spans = sum(one.spans for one in self._waiting)
        return spans >= GROUP_SPANS or sum(len(one.request.body) for one in self._waiting) >= GROUP_BYTES

    def _write(self, group: list[_Waiting]) -> None:
        outcome = self._writer.write([one.request for one in group])
        troubles = [str(answer) for answer in outcome.answers if isinstance(answer, StoreUnavailableError)]
        self._note(troubles[0] if troubles else "")
        self._loop.call_soon_threadsafe(self._settle, group, outcome)

    def _look(self) -> None:
        try:
            self._writer.check()
        except ProcessorError as error:
            self._note(str(error))
        else:
            self._note("")

    def _note(self, trouble: str) -> None:
        if bool(trouble) != bool(self._trouble):
            if trouble:
                logger.warning("the store: %s; what comes is refused until that changes", trouble)
            else:
                logger.info("the store takes what comes again")
        self._trouble = trouble

    def _unavailable(self, cause: str) -> StoreUnavailableError:
        return StoreUnavailableError(f"the store did not take it: {cause}", retry_after=overload_delay(self._chance()))

    # What follows runs in the event loop, because counters and futures live there.

    def _settle(self, group: list[_Waiting], outcome: Outcome) -> None:
        counter = self._telemetry.counters.store_spans
        counter.add(outcome.written, "written")
        counter.add(outcome.duplicates, "duplicate")
        for one, answer in zip(group, outcome.answers, strict=True):
            if isinstance(answer, int):
                counter.add(answer, "without_id")
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
        cause = self._unavailable(self._trouble)
        for one in group:
            if not one.future.done():
                one.future.set_exception(cause)
