"""Receives OTLP over gRPC as raw bytes: nothing is decoded here.

The export methods are registered as methods that take a stream. On the wire there is no difference to a single message,
but the handler runs as soon as the headers are there: a key is checked before the body is read, and the body has to
arrive in time. gRPC's own decompression is off, because it would inflate every message up to its limit before anybody
could count the bytes.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from neatlogs_processor.core.inflate import GZIP_MAGIC, inflate
from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.core.status import answer
from neatlogs_processor.errors import MalformedOtlpError, ProcessorError, RequestTooLargeError, SlowRequestError
from neatlogs_processor.formats import ListenAddress
from neatlogs_processor.receivers.health import HealthService
from neatlogs_processor.receivers.in_flight import BytesInFlight
from neatlogs_processor.receivers.listening import cannot_listen, check_socket_path
from neatlogs_processor.receivers.security import Authenticate

SERVICES = {
    Signal.TRACES: "opentelemetry.proto.collector.trace.v1.TraceService",
    Signal.METRICS: "opentelemetry.proto.collector.metrics.v1.MetricsService",
    Signal.LOGS: "opentelemetry.proto.collector.logs.v1.LogsService",
}

Handler = Callable[[Request], Awaitable[bytes]]
"""Answers one request with a serialised response, or raises `ProcessorError`."""

Refused = Callable[[Signal, ProcessorError], None]
"""Told about a request that never reached the handler."""

_Context = grpc.aio.ServicerContext[Any, bytes]

_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}

# Bits of grpc_compression_algorithm: identity (0) and gzip (2). Deflate, which OTLP does not ask for, is answered
# UNIMPLEMENTED by gRPC, with the list of what is there.
_IDENTITY_AND_GZIP = 0b101

_HEALTH_REQUEST_LIMIT = 4096


@dataclass(frozen=True)
class GrpcLimits:
    """What one client may take up. Times are in seconds.

    Attributes:
        max_streams: Requests at the same time over one connection.
        connection_age: After this time a client is told to connect again.
        connection_age_grace: How long its requests may then still take.
        connection_idle: A connection without a request for this time is closed.
        handshake_timeout: From the connection until TLS and HTTP/2 have been spoken.
        max_header_size: Bytes of all headers of a request.
        body_timeout: From the headers until the body is there.
        max_arriving: Requests, over all connections, whose body is still arriving. gRPC holds those bytes itself and
            does not say how many they are, so their number times their largest size is the bound.
    """

    max_streams: int = 100
    connection_age: float = 3600.0
    connection_age_grace: float = 30.0
    connection_idle: float = 900.0
    handshake_timeout: float = 10.0
    max_header_size: int = 16 * 2**10
    body_timeout: float = 30.0
    max_arriving: int = 100


class OtlpGrpcReceiver:
    """An OTLP/gRPC server: the three export services and the gRPC health service.

    Must be made where the event loop runs.

    Args:
        handler: Answers the requests of every signal.
        bytes_in_flight: Where the bytes of requests are counted; its `max_message_size` bounds each one.
        limits: What one client may take up.
        authenticate: Decides who may send; `None` lets everybody. The health service asks nobody: probes have no key.
        credentials: TLS; `None` speaks plain HTTP/2. Socket files are always plain.
        refused: Told about requests that never reached the handler.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        bytes_in_flight: BytesInFlight,
        limits: GrpcLimits | None = None,
        authenticate: Authenticate | None = None,
        credentials: grpc.ServerCredentials | None = None,
        refused: Refused = lambda _signal, _error: None,
    ) -> None:
        self._handler = handler
        self._bytes_in_flight = bytes_in_flight
        self._limits = limits = limits or GrpcLimits()
        self._authenticate = authenticate
        self._credentials = credentials
        self._refused = refused
        self._arriving = 0
        self._server = grpc.aio.server(
            options=(
                # Two processes on one port would share its traffic in silence.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", bytes_in_flight.max_message_size),
                ("grpc.max_send_message_length", -1),
                ("grpc.per_message_decompression", 0),
                ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_AND_GZIP),
                ("grpc.max_concurrent_streams", limits.max_streams),
                # Above the soft limit gRPC refuses some requests by chance; with both alike, the limit is the limit.
                ("grpc.max_metadata_size", limits.max_header_size),
                ("grpc.absolute_max_metadata_size", limits.max_header_size),
                ("grpc.max_connection_age_ms", _milliseconds(limits.connection_age)),
                ("grpc.max_connection_age_grace_ms", _milliseconds(limits.connection_age_grace)),
                ("grpc.max_connection_idle_ms", _milliseconds(limits.connection_idle)),
                ("grpc.server_handshake_timeout_ms", _milliseconds(limits.handshake_timeout)),
                # A client that vanished is noticed; a client's own pings, as often as every ten seconds, are fine.
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 20_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
            )
        )
        self._server.add_generic_rpc_handlers(
            tuple(
                grpc.method_handlers_generic_handler(
                    service, {"Export": grpc.stream_unary_rpc_method_handler(self._export(signal))}
                )
                for signal, service in SERVICES.items()
            )
        )
        self._health = HealthService(SERVICES.values())
        self._server.add_generic_rpc_handlers((_health_handler(self._health),))

    def bind(self, address: ListenAddress) -> ListenAddress:
        """Take the address and return the one taken, with the port that was chosen where 0 was asked for.

        Raises:
            ConfigError: The address is taken or cannot be used.
        """
        if address.path:
            check_socket_path("--grpc-listen", Path(address.path))
        try:
            if self._credentials is None or address.path:
                port = self._server.add_insecure_port(address.target)
            else:
                port = self._server.add_secure_port(address.target, self._credentials)
        except RuntimeError:
            port = 0
        if port == 0:
            raise cannot_listen("--grpc-listen", address)
        return address.with_port(port)

    async def start(self) -> None:
        """Accept requests."""
        await self._server.start()

    def drain(self) -> None:
        """Let the health service say NOT_SERVING from now on; requests are still accepted."""
        self._health.drain()

    async def stop(self, grace: float) -> None:
        """Stop accepting, let requests in flight finish for `grace` seconds, then cancel them."""
        self.drain()
        await self._server.stop(grace)

    def _export(self, signal: Signal) -> Callable[[object, _Context], Awaitable[bytes]]:
        async def export(_: object, context: _Context) -> bytes:
            try:
                return await self._answer(signal, context)
            except ProcessorError as error:
                failure = answer(error)
            return await context.abort(_STATUS_CODES[failure.grpc_code], failure.message, failure.grpc_trailers)

        return export

    async def _answer(self, signal: Signal, context: _Context) -> bytes:
        headers = tuple(context.invocation_metadata() or ())
        left = context.time_remaining()
        deadline = None if left is None else asyncio.get_running_loop().time() + left
        with self._bytes_in_flight.lease() as compressed, self._bytes_in_flight.lease() as plain:
            try:
                if self._authenticate is not None:
                    held_key = self._authenticate(signal, dict(headers))
                    headers = tuple(header for header in headers if header[0] != held_key)
                body = await self._read(context)
                if body.startswith(GZIP_MAGIC):
                    compressed.grow(len(body))
                    body = inflate(body, plain.grow)
                    compressed.end()
                else:
                    plain.grow(len(body))
            except ProcessorError as error:
                self._refused(signal, error)
                raise
            return await self._handler(Request(signal=signal, body=body, headers=headers, deadline=deadline))

    async def _read(self, context: _Context) -> bytes:
        if self._arriving >= self._limits.max_arriving:
            raise self._bytes_in_flight.overloaded(
                f"the bodies of {self._arriving} requests are still arriving (--max-concurrent-requests)"
            )
        self._arriving += 1
        patience = _Patience(self._limits.body_timeout)
        try:
            body = await context.read()
        except asyncio.CancelledError:
            if not patience.is_over:
                raise
            raise SlowRequestError(
                f"the body did not arrive within {self._limits.body_timeout:g} s (--body-timeout)"
            ) from None
        finally:
            patience.end()
            self._arriving -= 1
        if isinstance(body, bytes):
            return body
        # gRPC has answered RESOURCE_EXHAUSTED by itself, so this is only counted. (A stream without any message ends
        # up here too; no OTLP client sends one.)
        raise RequestTooLargeError("the request holds a message over --max-message-size, or none")


class _Patience:
    """Cancels the current task after some seconds. `asyncio.wait_for` does so in a task of its own, which costs a tenth
    of what gRPC spends on a small request; `asyncio.timeout` came with Python 3.11.
    """

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._give_up)

    def end(self) -> None:
        """Stop waiting."""
        self._timer.cancel()
        if self.is_over and self._task is not None and sys.version_info >= (3, 11):
            self._task.uncancel()

    def _give_up(self) -> None:
        self.is_over = True
        if self._task is not None:
            self._task.cancel()


def _health_handler(health: HealthService) -> grpc.GenericRpcHandler:
    def parse(data: bytes) -> health_pb2.HealthCheckRequest:
        # gRPC's decompression is off for the whole server.
        if data.startswith(GZIP_MAGIC):
            data = inflate(data, _bounded())
        return health_pb2.HealthCheckRequest.FromString(data)

    return grpc.method_handlers_generic_handler(
        "grpc.health.v1.Health",
        {
            "Check": grpc.unary_unary_rpc_method_handler(
                health.Check, parse, health_pb2.HealthCheckResponse.SerializeToString
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(
                health.Watch, parse, health_pb2.HealthCheckResponse.SerializeToString
            ),
        },
    )


def _bounded() -> Callable[[int], None]:
    left = _HEALTH_REQUEST_LIMIT

    def grown(size: int) -> None:
        nonlocal left
        left -= size
        if left < 0:
            raise MalformedOtlpError("a health request is a name")

    return grown


def _milliseconds(seconds: float) -> int:
    # gRPC takes 32 bits; the largest value means "never".
    return min(2**31 - 1, max(1, round(seconds * 1000)))
