"""The composition root: builds the processor from its settings, runs it, and takes it down in order.

receiver -> pipeline (bound, enforce, count) -> console -> budget -> retry -> exporter
receiver -> pipeline (bound, enforce, count) -> console -> durable queue ... exporter     with --queue-dir
receiver -> pipeline (bound, enforce, count) -> console -> holding ... durable queue      with --inherit
receiver -> pipeline (bound, enforce, count) -> console -> store [-> one of the above]    with --store
receiver -> pipeline (bound, enforce, count) -> console -> durable queue ... ClickHouse   with --store clickhouse://
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from starlette.routing import BaseRoute

from neatlogs_processor import wiring
from neatlogs_processor.core.backoff import Backoff
from neatlogs_processor.core.request import Signal
from neatlogs_processor.errors import ConfigError
from neatlogs_processor.exporters.console import Console
from neatlogs_processor.exporters.sender import Budget, Retry, Sender
from neatlogs_processor.exposition import Exposition
from neatlogs_processor.formats import ListenAddress
from neatlogs_processor.holding.events import HoldingEvents
from neatlogs_processor.holding.file import holding_file_in
from neatlogs_processor.holding.holding import Holding
from neatlogs_processor.own_listener import points_at
from neatlogs_processor.page_wiring import page_routes
from neatlogs_processor.pipeline import Pipeline
from neatlogs_processor.queue.durable import DurableQueue, QueueLimits, QueueState
from neatlogs_processor.queue.events import QueueEvents
from neatlogs_processor.queue.lane import LaneSettings
from neatlogs_processor.receivers.admin import AdminServer
from neatlogs_processor.receivers.in_flight import BytesInFlight
from neatlogs_processor.receivers.otlp_grpc import OtlpGrpcReceiver
from neatlogs_processor.receivers.otlp_http import OtlpHttpReceiver
from neatlogs_processor.settings import Settings
from neatlogs_processor.store.beside import BEST_EFFORT_SECONDS, StoreBeside
from neatlogs_processor.store.clickhouse.connection import ClickHouseLogin
from neatlogs_processor.store.clickhouse.destination import ClickHouseStore
from neatlogs_processor.store.clickhouse.reader import ClickHouseReader
from neatlogs_processor.store.reader import SqliteReader
from neatlogs_processor.store.sqlite import Store
from neatlogs_processor.telemetry import Telemetry, logger
from neatlogs_processor.tls import grpc_server_credentials, server_context
from neatlogs_processor.welcome import Listening, welcome

# Jitter spreads load; nothing depends on it being unpredictable.
_chance = random.random

_TOGETHER: Final = 100
"""Requests that are sent from a queue to ClickHouse at the same time: each waits for the others of its second."""

_LAST_SECONDS: Final = 10.0
"""After the shutdown's own time, before what does not end is left behind."""


class Service:
    """A processor that can be started and stopped. Must be made where the event loop runs.

    Args:
        settings: The settings.

    Raises:
        ConfigError: A setting cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pseudonyms = wiring.pseudonym_keys(settings)
        self._treat = wiring.treatment(settings, self._pseudonyms)
        self.telemetry = Telemetry()
        self._queue: DurableQueue | None = None
        self._holding: Holding | None = None
        self._store: Store | ClickHouseStore | None = None
        self._store_required = False
        self._reader: SqliteReader | ClickHouseReader | None = None
        # Where traces are kept, if they are.
        self.store_place: Path | ClickHouseLogin | None = None
        handle = Pipeline(
            self._destinations(),
            treat=self._treat,
            max_message_size=settings.max_message_size,
            max_concurrent_requests=settings.max_concurrent_requests,
            telemetry=self.telemetry,
            chance=_chance,
            explain=settings.explain,
        ).handle
        self._bytes_in_flight = BytesInFlight(
            settings.max_bytes_in_flight, max_message_size=settings.max_message_size, chance=_chance
        )
        telemetry = self.telemetry
        tls = wiring.listener_tls(settings)
        authenticate = wiring.authenticator(settings)
        self._grpc = OtlpGrpcReceiver(
            handle,
            bytes_in_flight=self._bytes_in_flight,
            limits=wiring.grpc_limits(settings),
            authenticate=authenticate,
            credentials=None if tls is None else grpc_server_credentials(tls),
            refused=lambda signal, error: telemetry.refused(signal, error, spans=0),
        )
        self._http: OtlpHttpReceiver | None = None
        if settings.http_listen is not None:
            self._http = OtlpHttpReceiver(
                handle,
                options=wiring.http_options(settings),
                bytes_in_flight=self._bytes_in_flight,
                authenticate=authenticate,
                # Socket files are always plain.
                ssl=None if tls is None or settings.http_listen.path else server_context(tls),
                refused=lambda signal, error: telemetry.refused(signal, error, spans=0),
                http_refused=lambda reason: telemetry.counters.http_refused.add(1, reason),
                failed=telemetry.failed,
            )
        self._listening = False
        # Where traces are received, with the real ports, once that is known.
        self._receiving: dict[str, ListenAddress] = {}
        telemetry.gauges.bytes_in_flight.read = lambda: self._bytes_in_flight.held
        telemetry.gauges.bytes_limit.read = lambda: settings.max_bytes_in_flight
        telemetry.gauges.ready.read = lambda: not self._not_ready()
        self._admin: AdminServer | None = None
        if settings.admin_listen is not None:
            self._admin = AdminServer(
                not_ready=self._not_ready,
                metrics=Exposition(telemetry).render,
                refused=lambda reason: telemetry.counters.http_refused.add(1, reason),
                failed=telemetry.failed,
                routes=self._page(),
            )

    def _page(self) -> Sequence[BaseRoute]:
        """Return the routes of the traces page, which shows a store where there is one."""
        place = self.store_place
        if isinstance(place, Path):
            self._reader = SqliteReader(place)
        elif place is not None:
            self._reader = ClickHouseReader.at(place)
        return page_routes(self._settings, self._reader, receiving=self._receiving, pseudonyms=self._pseudonyms)

    def _destinations(self) -> dict[Signal, Sender]:
        settings = self._settings
        self._exporter = wiring.exporter(settings)
        upstream = None if self._exporter is None else self._before(self._exporter)
        destinations: dict[Signal, Sender] = {} if upstream is None else dict.fromkeys(Signal, upstream)
        traces = self._with_store(upstream)
        if settings.console:
            traces = Console(sys.stdout, traces)
        if traces is not None:
            destinations[Signal.TRACES] = traces
        return destinations

    def _with_store(self, upstream: Sender | None) -> Sender | None:
        """Return what takes traces: the store, the upstream, or both."""
        settings = self._settings
        self.store_place = wiring.store_place(settings, os.environ)
        if self.store_place is None:
            return upstream
        if isinstance(self.store_place, Path):
            self._store = Store(
                self.store_place,
                policy=self._treat.policy,
                limits=wiring.store_limits(settings),
                telemetry=self.telemetry,
                chance=_chance,
            )
            if settings.store_max_size is not None:
                self.telemetry.gauges.store_bytes_limit.read = lambda: settings.store_max_size or 0
        else:
            self._store = ClickHouseStore(
                self.store_place,
                policy=self._treat.policy,
                batch_time=settings.store_batch_time,
                most_requests=settings.max_concurrent_requests if settings.queue_dir is None else _TOGETHER,
                telemetry=self.telemetry,
                chance=_chance,
            )
        if upstream is None and settings.queue_dir is not None:
            # What waits on the disk is not in need of the store now; and what is sent at once goes in together.
            return self._queued(settings.queue_dir, self._store, workers=max(settings.queue_workers, _TOGETHER))
        self._store_required = upstream is None or settings.store_required
        if upstream is None:
            return self._store
        patience = BEST_EFFORT_SECONDS + (0.0 if isinstance(self._store, Store) else settings.store_batch_time)
        return StoreBeside(
            self._store, upstream, required=settings.store_required, telemetry=self.telemetry, patience=patience
        )

    def _before(self, exporter: Sender) -> Sender:
        """Return what stands between the pipeline and the upstream."""
        settings = self._settings
        if settings.queue_dir is None:
            retries = self.telemetry.counters.retries
            retry = Retry(exporter, backoff=Backoff(), chance=_chance, on_retry=lambda: retries.add(1))
            return Budget(retry, limit=settings.upstream_timeout)
        return self._queued(settings.queue_dir, exporter, workers=settings.queue_workers)

    def _queued(self, directory: Path, destination: Sender, *, workers: int) -> Sender:
        """Return the durable queue before a destination, with what holds spans before it."""
        settings = self._settings
        self._queue = DurableQueue(
            directory,
            destination.send,
            limits=QueueLimits(settings.queue_max_bytes, settings.queue_max_age, settings.queue_max_dead_bytes),
            lanes=LaneSettings(workers, settings.upstream_timeout),
            events=QueueEvents(self.telemetry),
            chance=_chance,
        )
        queue, gauges = self._queue, self.telemetry.gauges
        gauges.queue_requests.read = lambda: queue.state.requests
        gauges.queue_bytes.read = lambda: queue.state.size
        gauges.queue_bytes_limit.read = lambda: settings.queue_max_bytes
        gauges.queue_oldest_age.read = lambda: queue.state.oldest_age
        gauges.queue_full.read = lambda: queue.state.full
        gauges.dead_letters.read = lambda: queue.state.dead_requests
        gauges.dead_letter_bytes.read = lambda: queue.state.dead_size
        if settings.inherit:
            return self._held_before(queue, directory)
        if holding_file_in(directory).exists():
            # What waited when the processor last ran with --inherit goes on.
            self._held_before(queue, directory)
        return queue

    def _held_before(self, queue: DurableQueue, directory: Path) -> Holding:
        """Return what holds spans until their root arrives, in front of the queue."""
        self._holding = Holding(
            directory,
            queue.send,
            inherits=self._settings.inherit,
            policy=self._treat.policy,
            keys=wiring.inherited(self._settings),
            limits=wiring.holding_limits(self._settings),
            events=HoldingEvents(self.telemetry),
            chance=_chance,
        )
        holding, gauges = self._holding, self.telemetry.gauges
        gauges.held_spans.read = lambda: holding.spans
        gauges.held_bytes.read = lambda: holding.size
        gauges.held_traces.read = lambda: holding.traces
        gauges.remembered_roots.read = lambda: holding.roots
        return holding

    @property
    def queue_state(self) -> QueueState | None:
        """How the durable queue is; `None` without `--queue-dir`."""
        return None if self._queue is None else self._queue.state

    async def start(self) -> Listening:
        """Listen, and return the addresses with their real ports.

        Raises:
            ConfigError: An address cannot be used, or the upstream is this processor.
        """
        settings = self._settings
        if self._store is not None:
            self._store.start()
        grpc = await self._not_upstream("--grpc-listen", self._grpc.bind(settings.grpc_listen))
        self._receiving["OTLP/gRPC"] = grpc
        http: ListenAddress | None = None
        if self._http is not None and settings.http_listen is not None:
            http = await self._not_upstream("--http-listen", self._http.bind(settings.http_listen))
            self._receiving["OTLP/HTTP"] = http
            await self._http.start()
        admin: ListenAddress | None = None
        if self._admin is not None and settings.admin_listen is not None:
            admin = await self._not_upstream("--admin-listen", self._admin.bind(settings.admin_listen))
            await self._admin.start()
        if self._queue is not None:
            self._queue.start()
        if self._holding is not None:
            self._holding.start()
        await self._grpc.start()
        self._listening = True
        return Listening(grpc, http, admin)

    def _not_ready(self) -> str:
        if not self._listening:
            return "starting or stopping"
        if self._queue is not None and self._queue.state.full:
            return "the queue is full"
        if self._holding is not None and self._holding.full:
            return "spans that waited for their roots find the queue full"
        if self._store is not None and self._store_required:
            return self._store.trouble
        return ""

    async def _not_upstream(self, flag: str, address: ListenAddress) -> ListenAddress:
        upstream = self._settings.upstream_endpoint
        if upstream is not None and await points_at(upstream, address):
            raise ConfigError(
                f"--upstream-endpoint {upstream} is this processor's own {flag} {address};"
                " it would send to itself without end: name the next hop"
            )
        return address

    async def drain(self) -> None:
        """Say everywhere that no more requests should be sent, and go on accepting them for `--drain-delay`."""
        self._listening = False
        self._grpc.drain()
        if self._http is not None:
            self._http.drain()
        await asyncio.sleep(self._settings.drain_delay)

    async def stop(self) -> None:
        """Stop accepting, let requests in flight finish, then deliveries, close the queue and the upstream.

        The admin port comes last, so that it can be seen how all else ends.
        """
        self._listening = False
        if isinstance(self._store, ClickHouseStore):
            self._store.hurry()
        grace = self._settings.shutdown_timeout
        end = asyncio.get_running_loop().time() + grace
        await asyncio.gather(*(one.stop(grace) for one in (self._grpc, self._http) if one is not None))
        if self._holding is not None:
            await self._holding.stop()
        if self._queue is not None:
            # What is not delivered by then stays on the disk, so the time is shared rather than added.
            await self._queue.stop(max(0.0, end - asyncio.get_running_loop().time()))
        if self._store is not None:
            await self._store.close()
        if self._exporter is not None:
            await self._exporter.close()
        if self._admin is not None:
            await self._admin.stop(0)
        if self._reader is not None:
            self._reader.close()


async def run(settings: Settings) -> None:
    """Run a processor until SIGTERM or SIGINT; a second signal ends the process at once with 128 + its number.

    Raises:
        ConfigError: A setting cannot be used.
    """
    stopping = asyncio.Event()

    def stop(number: signal.Signals) -> None:
        if stopping.is_set():
            logger.warning("%s again: leaving now, requests in flight are lost", number.name)
            os._exit(128 + number)
        first = f"accepting for another {settings.drain_delay:g} s, then " if settings.drain_delay else ""
        logger.info("%s: %sfinishing what is in flight (at most %g s)", number.name, first, settings.shutdown_timeout)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    service = Service(settings)
    try:
        welcome(settings, await service.start(), service.store_place)
        await stopping.wait()
        await service.drain()
        loop.call_later(settings.shutdown_timeout + _LAST_SECONDS, _leave)
    finally:
        await service.stop()
    logger.info("stopped; %s", service.telemetry.summary())


def _leave() -> None:
    """End the process although something in it does not: a thread cannot be broken off."""
    logger.error("something does not end; leaving now: what it worked on was not acknowledged")
    os._exit(1)
