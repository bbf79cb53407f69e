"""An OTLP/gRPC server that answers as it is told to and keeps what it received.

async with Upstream(Reply(code=StatusCode.UNAVAILABLE), Reply()) as upstream:
    ...  # the first request is refused, every later one accepted
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import grpc
import grpc.aio

SERVICES = {
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
}

_UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@dataclass(frozen=True)
class Reply:
    """One answer.

    Attributes:
        code: The status.
        message: Its message.
        trailers: Trailing metadata.
        response: The serialised response of a success.
        after: The answer waits for this event.
    """

    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""
    trailers: tuple[tuple[str, str | bytes], ...] = ()
    response: bytes = b""
    after: asyncio.Event | None = None


@dataclass(frozen=True)
class Received:
    """One request as it arrived, whatever the answer was."""

    signal: str
    body: bytes
    headers: dict[str, str | bytes]


@dataclass
class Upstream:
    """The server: started on entry, stopped on exit.

    Args:
        replies: One after the other; the last one repeats.
        port: 0 takes any.
        tls: PEM files of a key and a certificate, for a server that speaks TLS.
        client_ca: PEM file of the authority that must have signed a client's certificate.
    """

    replies: Iterable[Reply]
    received: list[Received] = field(default_factory=list)

    def __init__(
        self, *replies: Reply, port: int = 0, tls: tuple[Path, Path] | None = None, client_ca: Path | None = None
    ) -> None:
        self.replies = list(replies) or [Reply()]
        self.received = []
        self.arrived = asyncio.Condition()
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0), *_UNLIMITED))
        self._server.add_generic_rpc_handlers(
            tuple(
                grpc.method_handlers_generic_handler(
                    service, {"Export": grpc.unary_unary_rpc_method_handler(self._export(signal))}
                )
                for signal, service in SERVICES.items()
            )
        )
        if tls is None:
            self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            pair = (tls[0].read_bytes(), tls[1].read_bytes())
            self.port = self._server.add_secure_port(
                f"127.0.0.1:{port}",
                grpc.ssl_server_credentials(
                    [pair], client_ca.read_bytes() if client_ca else None, require_client_auth=client_ca is not None
                ),
            )

    @property
    def endpoint(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def bodies(self) -> list[bytes]:
        """The requests' bodies."""
        return [request.body for request in self.received]

    async def wait_for(self, count: int) -> None:
        """Wait until so many requests have arrived."""
        async with self.arrived:
            await asyncio.wait_for(self.arrived.wait_for(lambda: len(self.received) >= count), 30)

    async def __aenter__(self) -> Upstream:
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._server.stop(None)

    def _export(self, signal: str) -> Callable[[bytes, grpc.aio.ServicerContext[bytes, bytes]], Awaitable[bytes]]:
        async def export(body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            replies = list(self.replies)
            reply = replies[min(len(self.received), len(replies) - 1)]
            headers = dict(context.invocation_metadata() or ())
            async with self.arrived:
                self.received.append(Received(signal, body, headers))
                self.arrived.notify_all()
            if reply.after is not None:
                await reply.after.wait()
            if reply.code is not grpc.StatusCode.OK:
                await context.abort(reply.code, reply.message, reply.trailers)
            return reply.response

        return export


async def export(
    target: str,
    body: bytes,
    *,
    signal: str = "traces",
    metadata: tuple[tuple[str, str | bytes], ...] = (),
    timeout: float | None = 30,
    compression: grpc.Compression | None = None,
) -> bytes:
    """Send one request to a server, as a client that does not retry, and return the response's bytes."""
    async with grpc.aio.insecure_channel(target, options=_UNLIMITED) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICES[signal]}/Export")
        response: bytes = await call(body, timeout=timeout, metadata=metadata, compression=compression)
    return response


async def refused(target: str, body: bytes, **options: object) -> grpc.aio.AioRpcError:
    """Send one request and return the error that it was answered with."""
    try:
        await export(target, body, **options)  # type: ignore[arg-type]  # passed on as they are
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the request was accepted")
