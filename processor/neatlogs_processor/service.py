"""The composition root: builds the processor from its settings, runs it, and takes it down in order.

receiver -> pipeline (bound, enforce, count) -> console -> budget -> retry -> exporter
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import random
import signal
import socket
import sys
from importlib.metadata import version
from pathlib import Path

from neatlogs_processor.core.backoff import Backoff
from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.request import Signal
from neatlogs_processor.errors import ConfigError
from neatlogs_processor.exporters.console import Console
from neatlogs_processor.exporters.otlp_grpc import OtlpGrpcExporter
from neatlogs_processor.exporters.sender import Budget, Retry, Sender
from neatlogs_processor.formats import Endpoint, ListenAddress
from neatlogs_processor.pipeline import Pipeline
from neatlogs_processor.receivers.otlp_grpc import OtlpGrpcReceiver
from neatlogs_processor.settings import Settings
from neatlogs_processor.telemetry import Telemetry, logger

# Jitter spreads load; nothing depends on it being unpredictable.
_chance = random.random


class Service:
    """A processor that can be started and stopped. Must be made where the event loop runs.

    Args:
        settings: The settings.

    Raises:
        ConfigError: A setting cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.telemetry = Telemetry()
        self._exporter: OtlpGrpcExporter | None = None
        self._receiver = OtlpGrpcReceiver(
            Pipeline(
                self._destinations(),
                policy=EndUserPolicy(settings.roots, frozenset(settings.entry_services)),
                max_message_size=settings.max_message_size,
                max_concurrent_requests=settings.max_concurrent_requests,
                telemetry=self.telemetry,
                chance=_chance,
            ).handle,
            max_message_size=settings.max_message_size,
        )

    def _destinations(self) -> dict[Signal, Sender]:
        settings = self._settings
        upstream: Sender | None = None
        if settings.upstream_endpoint is not None:
            self._exporter = OtlpGrpcExporter(
                settings.upstream_endpoint,
                headers={name: value.get_secret_value() for name, value in settings.upstream_headers.items()},
                forward_headers=settings.forward_headers,
                compression=settings.upstream_compression,
                max_message_size=settings.max_message_size,
                ca_file=settings.upstream_ca_file,
            )
            retries = self.telemetry.counters.retries
            retry = Retry(self._exporter, backoff=Backoff(), chance=_chance, on_retry=lambda: retries.add(1))
            upstream = Budget(retry, limit=settings.upstream_timeout)
        destinations: dict[Signal, Sender] = {} if upstream is None else dict.fromkeys(Signal, upstream)
        if settings.console:
            destinations[Signal.TRACES] = Console(sys.stdout, upstream)
        return destinations

    async def start(self) -> ListenAddress:
        """Listen, and return the address with its real port.

        Raises:
            ConfigError: The address cannot be used, or the upstream is this processor.
        """
        settings = self._settings
        address = self._receiver.bind(settings.grpc_listen)
        if settings.upstream_endpoint is not None and await points_at(settings.upstream_endpoint, address):
            raise ConfigError(
                f"--upstream-endpoint {settings.upstream_endpoint} is this processor's own --grpc-listen {address};"
                " it would send to itself without end: name the next hop"
            )
        await self._receiver.start()
        return address

    async def stop(self) -> None:
        """Stop accepting, let requests in flight finish, close the upstream."""
        await self._receiver.stop(self._settings.shutdown_timeout)
        if self._exporter is not None:
            await self._exporter.close()


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
        logger.info("%s: finishing what is in flight (at most %g s)", number.name, settings.shutdown_timeout)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    service = Service(settings)
    try:
        address = await service.start()
        _welcome(settings, address)
        await stopping.wait()
    finally:
        await service.stop()
    logger.info("stopped; %s", service.telemetry.summary())


def _welcome(settings: Settings, address: ListenAddress) -> None:
    upstream = settings.upstream_endpoint
    destination = "no upstream" if upstream is None else f"upstream {upstream}"
    logger.info("neatlogs-processor %s is ready: OTLP/gRPC on %s, %s", version("neatlogs-otel"), address, destination)
    if upstream is None:
        logger.info("traces are printed, acknowledged and go nowhere else; --upstream-endpoint host:port sends them on")
        logger.info(
            "try, in another terminal: make demo (in the repository), or any application with"
            " OTEL_EXPORTER_OTLP_ENDPOINT=%s OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
            address if address.path else f"http://{address}",
        )
    elif settings.upstream_headers and not (upstream.tls or upstream.is_loopback):
        logger.warning("headers travel to %s without TLS; https://host:port encrypts them", upstream)


async def points_at(endpoint: Endpoint, address: ListenAddress) -> bool:
    """Say whether an endpoint leads to a listener of this machine, under whatever name it is written."""
    if endpoint.path or address.path:
        return bool(endpoint.path and address.path) and Path(endpoint.path).resolve() == Path(address.path).resolve()
    if endpoint.port != address.port:
        return False
    ours = await _addresses(address.host)
    theirs = await _addresses(endpoint.host)
    if ours & theirs:
        return True
    # Every loopback address reaches a listener on this machine's loopback in practice: which of them a name such as
    # localhost means differs from one resolver to the next.
    if any(one.is_loopback for one in ours) and any(one.is_loopback or one.is_unspecified for one in theirs):
        return True
    return any(one.is_unspecified for one in ours) and any(_is_local(one) for one in theirs)


async def _addresses(host: str) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        # A name that does not resolve (yet) leads nowhere; forwarding will say so.
        return set()
    addresses = set()
    for *_, sockaddr in found:
        one = ipaddress.ip_address(str(sockaddr[0]).partition("%")[0])
        addresses.add(getattr(one, "ipv4_mapped", None) or one)
    return addresses


def _is_local(one: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Say whether an address belongs to this machine: only then can a socket be bound to it."""
    if one.is_unspecified or one.is_loopback:
        return True
    try:
        with socket.socket(socket.AF_INET if one.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind((str(one), 0))
    except OSError:
        return False
    return True
