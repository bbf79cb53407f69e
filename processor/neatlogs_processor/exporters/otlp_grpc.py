"""Sends OTLP requests to an upstream over gRPC: the bytes as they are, through one channel."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path

import grpc
import grpc.aio

from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.core.status import GrpcCode, upstream_error, with_hint
from neatlogs_processor.errors import ConfigError, ExportError, UpstreamUnavailableError
from neatlogs_processor.formats import Endpoint

METHODS = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}

API_KEY_HEADER = "x-api-key"

_CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    # One link decides about retries, and it keeps the budget.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    # An upstream that comes back is found within seconds; gRPC's own default waits up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A connection that died silently is noticed while requests wait on it, not by them. Idle connections send no
    # pings: servers answer unexpected ones with GOAWAY.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # A status with details is larger than the default allows (8 KiB).
    ("grpc.max_metadata_size", 64 * 1024),
)


class OtlpGrpcExporter:
    """A sender (see `neatlogs_processor.exporters.sender.Sender`) over one gRPC channel.

    Must be made where the event loop runs.

    Args:
        endpoint: Where the upstream listens; its scheme decides about TLS.
        headers: Sent with every request.
        forward_headers: Names of request headers that travel on. A configured header wins over a forwarded one.
        compression: `"none"` or `"gzip"`.
        max_message_size: The largest response accepted, in bytes. What is sent was bounded by the receiver.
        ca_file: PEM file of the authorities that TLS trusts; `None` means the usual ones.

    Raises:
        ConfigError: `ca_file` cannot be read.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        headers: Mapping[str, str],
        forward_headers: Iterable[str] = (),
        compression: str = "none",
        max_message_size: int,
        ca_file: Path | None = None,
    ) -> None:
        self._headers = tuple((name.lower(), value) for name, value in headers.items())
        self._forward = frozenset(name.lower() for name in forward_headers) - {name for name, _ in self._headers}
        self._endpoint = endpoint
        gzip = grpc.Compression.Gzip if compression == "gzip" else grpc.Compression.NoCompression
        options = (
            *_CHANNEL_OPTIONS,
            ("grpc.max_receive_message_length", max_message_size),
            ("grpc.max_send_message_length", -1),
        )
        if endpoint.tls:
            credentials = grpc.ssl_channel_credentials(root_certificates=_read(ca_file))
            self._channel = grpc.aio.secure_channel(endpoint.target, credentials, options=options, compression=gzip)
        else:
            self._channel = grpc.aio.insecure_channel(endpoint.target, options=options, compression=gzip)
        # No (de)serialiser: bytes in, bytes out.
        self._calls: dict[Signal, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {
            signal: self._channel.unary_unary(method) for signal, method in METHODS.items()
        }

    async def send(self, request: Request) -> bytes:
        """Send the request once. The upstream's status, message and details are in the error."""
        timeout: float | None = None
        if request.deadline is not None:
            timeout = max(0.0, request.deadline - asyncio.get_running_loop().time())
        metadata = self._headers + tuple(header for header in request.headers if header[0] in self._forward)
        try:
            response: bytes = await self._calls[request.signal](request.body, timeout=timeout, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise self._explain(error, request) from None
        except (grpc.aio.UsageError, grpc.aio.InternalError) as error:
            # The channel was closed under the call: ours, not the upstream's, and sending again may help.
            raise UpstreamUnavailableError(
                f"the connection to {self._endpoint} is closed ({type(error).__name__})",
                grpc_code=GrpcCode.UNAVAILABLE,
            ) from None
        return response

    async def close(self) -> None:
        """Close the channel. Calls in flight are cancelled."""
        await self._channel.close()

    def _explain(self, error: grpc.aio.AioRpcError, request: Request) -> ExportError:
        code: int = error.code().value[0]
        trailers = tuple(error.trailing_metadata() or ())
        message = error.details() or error.code().name
        if code == GrpcCode.DEADLINE_EXCEEDED and not trailers and self._expired(request):
            # Our own deadline, not a word of the upstream's.
            return UpstreamUnavailableError(
                f"the upstream {self._endpoint} did not answer in time", grpc_code=GrpcCode.UNAVAILABLE
            )
        failure = upstream_error(code, message, trailers)
        if code == GrpcCode.UNAUTHENTICATED and self._withheld_api_key(request):
            return with_hint(
                failure,
                f"the request carried {API_KEY_HEADER}, which the processor does not pass on unless it is started"
                f" with --forward-headers {API_KEY_HEADER}",
            )
        return failure

    def _expired(self, request: Request) -> bool:
        # gRPC's timer may fire a little before the loop's clock gets there.
        return request.deadline is not None and asyncio.get_running_loop().time() >= request.deadline - 0.05

    def _withheld_api_key(self, request: Request) -> bool:
        sent = self._forward | {name for name, _ in self._headers}
        return API_KEY_HEADER not in sent and any(name == API_KEY_HEADER for name, _ in request.headers)


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--upstream-ca-file: cannot read {path} ({error.strerror})") from None
