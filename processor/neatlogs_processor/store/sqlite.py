"""The store as a destination: one thread that writes, for as many requests as are waiting, and cleans up in between.

While one transaction is on its way to the disk, what arrives gathers into the next: an fsync serves every request that
waits for one. A request is acknowledged after its transaction is on the disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from neatlogs_processor.core.backoff import overload_delay
from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.request import Request
from neatlogs_processor.errors import ProcessorError, StoreUnavailableError
from neatlogs_processor.store.files import is_busy, is_full, open_writer
from neatlogs_processor.store.retention import STEP_SPANS, Limits, Pruned, prune
from neatlogs_processor.store.rows import Batch, read_request
from neatlogs_processor.store.writing import Writing, Written
from neatlogs_processor.telemetry import Seldom, Telemetry, logger

GROUP_REQUESTS: Final = 64
GROUP_BYTES: Final = 16 * 2**20
"""A transaction takes no more than this: those who wait for it should not wait for a second."""

TIDY_SECONDS: Final = 30.0
"""How often a quiet store looks for traces that have become too old."""

_MINUTE: Final = 60.0


@dataclass
class _Waiting:
    request: Request
    future: asyncio.Future[bytes]
    batch: Batch | None = None


class Store:
    """Keeps the traces of requests, from `start` to `close`.

    Args:
        path: The file; made where it does not exist.
        policy: What the rule was told.
        limits: How much is kept.
        telemetry: Counts and logs.
        chance: Returns a random number, 0 <= chance < 1.
        clock: Returns nanoseconds since the epoch.
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
    ) -> None:
        self._path = path
        self._policy = policy
        self._limits = limits
        self._telemetry = telemetry
        self._chance = chance
        self._clock = clock
        self._seldom = Seldom(time.monotonic, again=_MINUTE)
        self._condition = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._closing = False
        self._prunes = True
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Open the file and begin. To be called in the event loop that sends.

        Raises:
            ConfigError: The file cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        self._connection = open_writer(self._path)
        self._writing = Writing(self._connection)
        self._thread = threading.Thread(target=self._work, name="neatlogs-store", daemon=True)
        self._thread.start()

    async def send(self, request: Request) -> bytes:
        """Keep the spans of a trace request, those that are there already excepted.

        Returns:
            An `ExportTraceServiceResponse`: with a `partial_success` where spans have no id and cannot be kept.

        Raises:
            MalformedOtlpError: Protobuf cannot read the request.
            StoreUnavailableError: It was not kept, and may be later: no room, or another process holds the store.
        """
        future: asyncio.Future[bytes] = self._loop.create_future()
        with self._condition:
            if self._closing or self._thread is None:
                raise self._unavailable("it is closed")
            self._waiting.append(_Waiting(request, future))
            self._condition.notify()
        return await future

    async def close(self) -> None:
        """Write what is waiting, and close the file."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        try:
            while (group := self._next_group()) is not None:
                written = self._run(group) if group else 0
                # At twice the pace of what comes in, so that it catches up under any load.
                self._tidy(max(STEP_SPANS, 2 * written))
        finally:
            self._connection.close()

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

    def _run(self, group: list[_Waiting]) -> int:
        readable = [one for one in group if self._read(one)]
        if not readable:
            return 0
        try:
            written = self._write(readable)
        except sqlite3.DatabaseError as error:
            if not isinstance(error, (sqlite3.IntegrityError, sqlite3.DataError)):
                self._refuse(readable, error)
                return 0
            written = self._write_apart(readable)
        except Exception:  # noqa: BLE001  # one request that cannot be written must not cost the others
            written = self._write_apart(readable)
        return written.spans

    def _read(self, one: _Waiting) -> bool:
        try:
            one.batch = read_request(one.request.body, self._policy)
        except Exception as error:  # noqa: BLE001  # handed to whoever sent it
            self._fail(one, error)
            return False
        return True

    def _write(self, group: list[_Waiting]) -> Written:
        written = self._writing.write(
            [
                (one.batch, one.request.enforced.overrides if one.request.enforced is not None else ())
                for one in group
                if one.batch is not None
            ],
            self._clock(),
        )
        self._loop.call_soon_threadsafe(self._settle, group, written)
        return written

    def _write_apart(self, group: list[_Waiting]) -> Written:
        return Written(sum(self._write_alone(one) for one in group))

    def _write_alone(self, one: _Waiting) -> int:
        try:
            return self._write([one]).spans
        except sqlite3.OperationalError as error:
            self._refuse([one], error)
        except Exception as error:  # noqa: BLE001  # handed to whoever sent it
            self._fail(one, error)
        return 0

    def _refuse(self, group: list[_Waiting], error: sqlite3.Error) -> None:
        if is_full(error):
            cause = "there is no room on the disk"
        elif is_busy(error):
            cause = "another process is writing to it (store prune or forget?)"
        else:
            cause = str(error)
        for one in group:
            self._fail(one, self._unavailable(cause))

    def _unavailable(self, cause: str) -> ProcessorError:
        return StoreUnavailableError(f"the store did not take it: {cause}", retry_after=overload_delay(self._chance()))

    def _fail(self, one: _Waiting, error: Exception) -> None:
        self._loop.call_soon_threadsafe(self._settle_failed, one.future, error)

    def _tidy(self, spans: int) -> None:
        try:
            pruned = prune(self._connection, self._limits, self._clock(), spans=spans)
        except sqlite3.Error as error:
            self._prunes = False
            self._loop.call_soon_threadsafe(self._prune_failed, str(error))
            return
        self._prunes = pruned.more
        if pruned.traces:
            # Resources may have gone that this process believes to be there.
            self._writing.forget_shared()
            self._loop.call_soon_threadsafe(self._pruned, pruned)

    # What follows runs in the event loop, because counters and futures live there.

    def _settle(self, group: list[_Waiting], written: Written) -> None:
        counter = self._telemetry.counters.store_spans
        counter.add(written.spans, "written")
        counter.add(written.duplicates, "duplicate")
        for one in group:
            without_id = one.batch.without_id if one.batch is not None else 0
            counter.add(without_id, "without_id")
            if not one.future.done():
                one.future.set_result(_response(without_id))

    @staticmethod
    def _settle_failed(future: asyncio.Future[bytes], error: Exception) -> None:
        if not future.done():
            future.set_exception(error)

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


def _response(without_id: int) -> bytes:
    if not without_id:
        # An empty message is a complete success.
        return b""
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = without_id
    response.partial_success.error_message = f"{without_id} spans have no trace id or no span id"
    return response.SerializeToString()
