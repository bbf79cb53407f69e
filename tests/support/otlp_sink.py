"""A real OTLP receiver for tests: gRPC and HTTP on free loopback ports, everything that arrives is kept.

    with OtlpSink() as sink:
        exporter = OTLPSpanExporter(endpoint=sink.grpc_endpoint)
        ...
        sink.wait_for_spans(1)
        assert sink.requests[0].headers["x-api-key"] == "..."

`sink.answer(...)` sets what every later request is answered with; between `sink.hold()` and `sink.release()` requests
arrive and are not answered.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

WAIT_SECONDS = 30.0
"""Long enough for a busy machine: a test that waits this long has failed."""


@dataclass(frozen=True)
class Received:
    """One export request as it arrived.

    Attributes:
        body: The decoded request.
        headers: gRPC metadata or HTTP headers, names in lower case.
        path: The HTTP path; empty for gRPC.
    """

    body: ExportTraceServiceRequest
    headers: dict[str, str]
    path: str


def attributes(carrier: Span | Resource | Span.Event) -> dict[str, object]:
    """The attributes of a protobuf span, event or resource as plain values (string, bool, int, float, list)."""
    return {pair.key: _plain(pair.value) for pair in _pairs(carrier)}


def _pairs(carrier: Span | Resource | Span.Event) -> Iterator[KeyValue]:
    yield from carrier.attributes


def _plain(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


class OtlpSink:
    """Starts on entry, stops on exit. Thread-safe."""

    def __init__(self) -> None:
        self._received: list[Received] = []
        self._changed = threading.Condition()
        self._grpc_status: grpc.StatusCode | None = None
        self._http_status = 200
        self._may_answer = threading.Event()
        self._may_answer.set()
        self._grpc = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
        add_TraceServiceServicer_to_server(_Servicer(self), self._grpc)  # type: ignore[no-untyped-call]  # generated code
        self.grpc_port = self._grpc.add_insecure_port("127.0.0.1:0")
        self._http = _HttpServer(("127.0.0.1", 0), self)
        self.http_port: int = self._http.server_address[1]
        self._http_thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def grpc_endpoint(self) -> str:
        """`http://127.0.0.1:PORT`, speaking OTLP/gRPC."""
        return f"http://127.0.0.1:{self.grpc_port}"

    @property
    def http_endpoint(self) -> str:
        """`http://127.0.0.1:PORT`, speaking OTLP/HTTP with protobuf."""
        return f"http://127.0.0.1:{self.http_port}"

    def listen_at(self, socket_path: str) -> None:
        """Speak OTLP/gRPC at a Unix socket too; before the sink is entered."""
        self._grpc.add_insecure_port(f"unix:{socket_path}")

    def __enter__(self) -> OtlpSink:
        self._grpc.start()
        self._http_thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
        self._grpc.stop(None).wait(WAIT_SECONDS)
        self._http.shutdown()
        self._http_thread.join(WAIT_SECONDS)
        self._http.server_close()

    def answer(self, *, grpc_status: grpc.StatusCode | None = None, http_status: int = 200) -> None:
        """Answer every later request with these statuses; no arguments: accept again."""
        self._grpc_status, self._http_status = grpc_status, http_status

    def hold(self) -> None:
        """Let later requests wait for their answers, until `release()` or the end of the sink."""
        self._may_answer.clear()

    def release(self) -> None:
        """Answer what waits, and everything later at once."""
        self._may_answer.set()

    @property
    def requests(self) -> list[Received]:
        """What has arrived so far, refused requests included."""
        with self._changed:
            return list(self._received)

    @property
    def spans(self) -> list[Span]:
        """Every span that has arrived, in order."""
        return [span for _, span in self.spans_with_resources]

    @property
    def spans_with_resources(self) -> list[tuple[Resource, Span]]:
        """Every span that has arrived, with its resource."""
        return [
            (group.resource, span)
            for received in self.requests
            for group in received.body.resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]

    def wait_for_spans(self, count: int) -> list[Span]:
        """Return all spans once `count` have arrived; fail after `WAIT_SECONDS`."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: len(self.spans) >= count, WAIT_SECONDS)
        assert arrived, f"waited for {count} spans, got {[span.name for span in self.spans]}"
        return self.spans

    def _keep(self, received: Received) -> None:
        with self._changed:
            self._received.append(received)
            self._changed.notify_all()
        self._may_answer.wait(10 * WAIT_SECONDS)


class _Servicer(TraceServiceServicer):
    def __init__(self, sink: OtlpSink) -> None:
        self._sink = sink

    def Export(  # noqa: N802  # the name of the generated method
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        headers = {key: str(value) for key, value in context.invocation_metadata()}
        self._sink._keep(Received(request, headers, ""))
        if self._sink._grpc_status is not None:
            context.abort(self._sink._grpc_status, "the test asked for this status")
        return ExportTraceServiceResponse()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], sink: OtlpSink) -> None:
        self.sink = sink
        super().__init__(address, _HttpHandler)


class _HttpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        sink = self.server.sink  # type: ignore[attr-defined]  # the standard library types it as the base server
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        headers = {key.lower(): value for key, value in self.headers.items()}
        sink._keep(Received(ExportTraceServiceRequest.FromString(body), headers, self.path))
        self.send_response(sink._http_status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the test's own output matters."""
