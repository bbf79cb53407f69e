"""Receives OTLP over gRPC as raw bytes: nothing is decoded here."""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2_grpc

from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.core.status import answer
from neatlogs_processor.errors import ConfigError, ProcessorError
from neatlogs_processor.formats import ListenAddress
from neatlogs_processor.receivers.health import HealthService

SERVICES = {
    Signal.TRACES: "opentelemetry.proto.collector.trace.v1.TraceService",
    Signal.METRICS: "opentelemetry.proto.collector.metrics.v1.MetricsService",
    Signal.LOGS: "opentelemetry.proto.collector.logs.v1.LogsService",
}

Handler = Callable[[Request], Awaitable[bytes]]
"""Answers one request with a serialised response, or raises `ProcessorError`."""

_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}


class OtlpGrpcReceiver:
    """An OTLP/gRPC server: the three export services and the gRPC health service.

    Must be made where the event loop runs.

    Args:
        handler: Answers the requests of every signal.
        max_message_size: Bytes; gRPC itself refuses larger messages with `RESOURCE_EXHAUSTED`, measured after
            decompression.
    """

    def __init__(self, handler: Handler, *, max_message_size: int) -> None:
        self._handler = handler
        self._server = grpc.aio.server(
            options=(
                # Two processes on one port would share its traffic in silence.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", max_message_size),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", 100),
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
                    service, {"Export": grpc.unary_unary_rpc_method_handler(self._export(signal))}
                )
                for signal, service in SERVICES.items()
            )
        )
        self._health = HealthService(SERVICES.values())
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    def bind(self, address: ListenAddress) -> ListenAddress:
        """Take the address and return the one taken, with the port that was chosen where 0 was asked for.

        Raises:
            ConfigError: The address is taken or cannot be used.
        """
        if address.path:
            _check_socket_path(Path(address.path))
        try:
            port = self._server.add_insecure_port(address.target)
        except RuntimeError:
            port = 0
        if port == 0:
            raise ConfigError(
                f"--grpc-listen: cannot listen on {address}: the address is in use or not this machine's;"
                " stop the other process or choose another port"
            )
        return address.with_port(port)

    async def start(self) -> None:
        """Accept requests."""
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Stop accepting, let requests in flight finish for `grace` seconds, then cancel them."""
        self._health.drain()
        await self._server.stop(grace)

    def _export(self, signal: Signal) -> Callable[[bytes, grpc.aio.ServicerContext[bytes, bytes]], Awaitable[bytes]]:
        async def export(body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            left = context.time_remaining()
            request = Request(
                signal=signal,
                body=body,
                headers=tuple(context.invocation_metadata() or ()),
                deadline=None if left is None else asyncio.get_running_loop().time() + left,
            )
            try:
                return await self._handler(request)
            except ProcessorError as error:
                failure = answer(error)
            return await context.abort(_STATUS_CODES[failure.grpc_code], failure.message, failure.grpc_trailers)

        return export


def _check_socket_path(path: Path) -> None:
    """Refuse a path that something else uses; gRPC would unlink it without asking.

    A socket that nobody listens on was left behind by a process that died, and may be replaced.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise ConfigError(f"--grpc-listen: the folder of {path} does not exist; create it first") from None
        return
    except OSError as error:
        raise ConfigError(f"--grpc-listen: cannot use {path} ({error.strerror})") from None
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"--grpc-listen: {path} exists and is not a socket; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except OSError:
            return
    raise ConfigError(f"--grpc-listen: another process listens on {path}; stop it or choose another path")
