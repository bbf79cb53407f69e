"""Sends OTLP requests to an upstream over gRPC: the bytes as they are, through one channel."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import grpc
import grpc.aio

from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.core.status import GrpcCode, upstream_error, with_hint
from neatlogs_processor.errors import ExportError, UpstreamUnavailableError
from neatlogs_processor.exporters.outgoing import WITHHELD_API_KEY, OutgoingHeaders
from neatlogs_processor.formats import Endpoint
from neatlogs_processor.reloading import Reloading
from neatlogs_processor.tls import Pem, TlsFiles, grpc_channel_credentials, read_pem

METHODS = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}

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
    # Channels to one target share connections otherwise, so a new channel would not mean a new connection.
    ("grpc.use_local_subchannel_pool", 1),
    # A status with details is larger than the default allows (8 KiB).
    ("grpc.max_metadata_size", 64 * 1024),
)

_NOT_REACHED = ("failed to connect to all addresses", "DNS resolution failed")
"""What grpcio says, in the place of an upstream, where there is none. A client that read it alone would look for the
mistake in its own address, which is the processor's."""

_UNANSWERED = 3
_UNANSWERED_SECONDS = 2.0
"""After so many requests in a row, over at least so long, that ended without a word, another connection is tried. gRPC
keeps one for as long as it is alive, and what holds it alive (a proxy, say) need not be what should answer."""

_RETIRED_CHANNEL_GRACE = 60.0
"""Seconds that requests on a channel have after another took over; longer than any of them takes."""


class OtlpGrpcExporter:
    """A sender (see `neatlogs_processor.exporters.sender.Sender`) over one gRPC channel.

    Must be made where the event loop runs.

    Args:
        endpoint: Where the upstream listens; its scheme decides about TLS.
        headers: Sent with every request.
        forward_headers: Names of request headers that travel on. A configured header wins over a forwarded one.
        compression: `"none"` or `"gzip"`.
        max_response_size: The largest response accepted, in bytes. What is sent was bounded by the receiver.
        tls_files: What TLS trusts and shows; `None` trusts whom the system trusts. After a change, a new channel
            takes over, and requests on the one before may finish.

    Raises:
        ConfigError: A TLS file cannot be used.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        headers: Mapping[str, str],
        forward_headers: Iterable[str] = (),
        compression: str = "none",
        max_response_size: int = 4 * 2**20,
        tls_files: TlsFiles | None = None,
    ) -> None:
        self._headers = OutgoingHeaders(headers, forward_headers)
        self._endpoint = endpoint
        self._compression = grpc.Compression.Gzip if compression == "gzip" else grpc.Compression.NoCompression
        self._options = (
            *_CHANNEL_OPTIONS,
            ("grpc.max_receive_message_length", max_response_size),
            ("grpc.max_send_message_length", -1),
        )
        self._pem: Reloading[Pem] | None = None
        if endpoint.tls and tls_files is not None:
            self._pem = Reloading(tls_files.paths, lambda: read_pem(tls_files))
        self._opened_with: Pem | None = None
        self._retired: set[asyncio.Task[None]] = set()
        self._unanswered = 0
        self._unanswered_since = 0.0
        self._open()

    def _open(self) -> None:
        if self._endpoint.tls:
            self._opened_with = Pem(None, None, None) if self._pem is None else self._pem.get()
            self._channel = grpc.aio.secure_channel(
                self._endpoint.target,
                grpc_channel_credentials(self._opened_with),
                options=self._options,
                compression=self._compression,
            )
        else:
            self._channel = grpc.aio.insecure_channel(
                self._endpoint.target, options=self._options, compression=self._compression
            )
        # No (de)serialiser: bytes in, bytes out.
        self._calls: dict[Signal, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {
            signal: self._channel.unary_unary(method) for signal, method in METHODS.items()
        }

    def _follow_files(self) -> None:
        """Open a new channel where the TLS files have changed: a channel keeps the credentials it was made with."""
        if self._pem is not None and self._pem.get() is not self._opened_with:
            self._open_anew()

    def _no_answer(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._unanswered == 0:
            self._unanswered_since = now
        self._unanswered += 1
        if self._unanswered >= _UNANSWERED and now - self._unanswered_since >= _UNANSWERED_SECONDS:
            self._unanswered = 0
            self._open_anew()

    def _open_anew(self) -> None:
        """Let another channel take over. Requests on the one before may finish."""
        before = self._channel
        self._open()
        task = asyncio.create_task(before.close(_RETIRED_CHANNEL_GRACE))
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    async def send(self, request: Request) -> bytes:
        """Send the request once. The upstream's status, message and details are in the error."""
        timeout: float | None = None
        if request.deadline is not None:
            timeout = max(0.0, request.deadline - asyncio.get_running_loop().time())
        metadata = self._headers.metadata(request)
        self._follow_files()
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
        self._unanswered = 0
        return response

    async def close(self) -> None:
        """Close the channel. Calls in flight are cancelled."""
        await self._channel.close()
        await asyncio.gather(*self._retired)

    def _explain(self, error: grpc.aio.AioRpcError, request: Request) -> ExportError:
        code: int = error.code().value[0]
        trailers = tuple(error.trailing_metadata() or ())
        message = error.details() or error.code().name
        if code == GrpcCode.DEADLINE_EXCEEDED and not trailers and self._expired(request):
            # Our own deadline, not a word of the upstream's.
            self._no_answer()
            return UpstreamUnavailableError(
                f"the upstream {self._endpoint} did not answer in time", grpc_code=GrpcCode.UNAVAILABLE
            )
        self._unanswered = 0
        if code == GrpcCode.UNAVAILABLE and not trailers and message.startswith(_NOT_REACHED):
            return UpstreamUnavailableError(
                f"the upstream {self._endpoint} cannot be reached: {message}", grpc_code=GrpcCode.UNAVAILABLE
            )
        failure = upstream_error(code, message, trailers)
        if code == GrpcCode.UNAUTHENTICATED and self._headers.withholds_api_key(request):
            return with_hint(failure, WITHHELD_API_KEY)
        return failure

    def _expired(self, request: Request) -> bool:
        # gRPC's timer may fire a little before the loop's clock gets there.
        return request.deadline is not None and asyncio.get_running_loop().time() >= request.deadline - 0.05
