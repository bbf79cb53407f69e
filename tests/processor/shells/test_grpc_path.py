"""From a client through the processor to an upstream, over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.errors import UpstreamUnavailableError
from neatlogs_processor.exporters.otlp_grpc import OtlpGrpcExporter
from neatlogs_processor.formats import Endpoint
from support.processor import running
from support.spans import END_USER, child, names_and_end_users, request, root
from support.upstream import SERVICES, Reply, Upstream, export, refused

TLS = Path(__file__).parents[2] / "data" / "tls"


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


async def test_a_request_that_needs_no_change_arrives_as_the_same_bytes(upstream: Upstream) -> None:
    """What the rule does not touch is not touched at all."""
    body = request(root(neatlogs__end_user__id="u_1"), child())
    async with running(upstream_endpoint=upstream.endpoint) as processor:
        assert await export(processor.target, body) == b""
    assert upstream.bodies == [body]


async def test_an_override_does_not_reach_the_upstream(upstream: Upstream) -> None:
    """A child's claim is removed on the way, the root's stays."""
    body = request(root(neatlogs__end_user__id="u_1"), child(neatlogs__end_user__id="u_2"))
    async with running(upstream_endpoint=upstream.endpoint) as processor:
        await export(processor.target, body)
        counters = processor.service.telemetry.counters
    assert names_and_end_users(upstream.bodies[0]) == {"root": "u_1", "child": None}
    assert counters.overrides_ignored.get("child") == 1
    assert (counters.spans_received.total(), counters.spans_forwarded.total()) == (2, 2)
    assert counters.roots.get("yes") == 1


@pytest.mark.parametrize("signal", ["metrics", "logs"])
async def test_metrics_and_logs_pass_through_as_the_same_bytes(upstream: Upstream, signal: str) -> None:
    """Signals without a rule are not read, so even bytes that are no OTLP arrive as they are."""
    body = b"\xff not OTLP " + END_USER.encode()
    async with running(upstream_endpoint=upstream.endpoint) as processor:
        await export(processor.target, body, signal=signal)
    assert [(received.signal, received.body) for received in upstream.received] == [(signal, body)]


async def test_the_response_comes_back_as_it_came() -> None:
    """A partial success, and fields that nobody knows yet, reach the client."""
    partial = ExportTracePartialSuccess(rejected_spans=3, error_message="three were too old")
    response = ExportTraceServiceResponse(partial_success=partial).SerializeToString() + b"\xa0\x06\x01"
    reply = Reply(response=response)
    async with Upstream(reply) as upstream, running(upstream_endpoint=upstream.endpoint) as processor:
        assert await export(processor.target, request(root())) == response


async def test_ok_is_answered_only_after_the_upstream_accepted() -> None:
    """While the upstream has not answered, neither has the processor."""
    accept = asyncio.Event()
    async with (
        Upstream(Reply(after=accept)) as upstream,
        running(upstream_endpoint=upstream.endpoint) as processor,
    ):
        answer = asyncio.create_task(export(processor.target, request(root())))
        await upstream.wait_for(1)
        assert not answer.done()
        accept.set()
        assert await answer == b""


async def test_a_malformed_request_is_refused_and_nothing_of_it_goes_on(upstream: Upstream) -> None:
    """Framing that does not add up is INVALID_ARGUMENT, which clients do not repeat."""
    async with running(upstream_endpoint=upstream.endpoint) as processor:
        error = await refused(processor.target, request(root(neatlogs__end_user__id="u_1"))[:-3])
        assert processor.service.telemetry.counters.requests.get("traces", "malformed") == 1
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert upstream.received == []


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_a_request_over_the_size_limit_is_refused(upstream: Upstream, compression: grpc.Compression) -> None:
    """The limit holds for the size after decompression, and the refusal has no RetryInfo."""
    async with running(upstream_endpoint=upstream.endpoint, max_message_size="10KiB") as processor:
        error = await refused(processor.target, request(root("x" * 20_000)), compression=compression)
        assert processor.service.telemetry.counters.requests.get("traces", "too_large") == 1
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailers = dict(error.trailing_metadata())
    assert "google.rpc.retryinfo-bin" not in trailers
    assert not Status.FromString(trailers.get("grpc-status-details-bin", b"")).details
    assert upstream.received == []


async def test_messages_over_grpc_s_default_limit_pass_in_both_directions() -> None:
    """gRPC's default of 4 MiB bounds neither requests nor responses."""
    body, response = request(root("x" * 6_000_000)), b"\xaa\x06\x80\x80\xc0\x02" + b"\0" * 0x500000
    reply = Reply(response=response)
    async with (
        Upstream(reply) as upstream,
        running(upstream_endpoint=upstream.endpoint, upstream_max_response_size="6MiB") as processor,
    ):
        assert await export(processor.target, body) == response
    assert upstream.bodies == [body]


async def test_an_unknown_method_is_unimplemented(upstream: Upstream) -> None:
    """Only the three OTLP services and the health service are there."""
    async with (
        running(upstream_endpoint=upstream.endpoint) as processor,
        grpc.aio.insecure_channel(processor.target) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await channel.unary_unary(f"/{SERVICES['traces']}/Import")(b"")
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("signal", ["metrics", "logs"])
async def test_a_signal_without_a_destination_is_unimplemented(signal: str) -> None:
    """With a console alone, metrics and logs have nowhere to go, and the answer names the flag."""
    async with running(console=True) as processor:
        error = await refused(processor.target, b"", signal=signal)
        assert processor.service.telemetry.counters.requests.get(signal, "no_destination") == 1
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "--upstream-endpoint" in (error.details() or "")


async def test_configured_headers_are_sent_and_request_headers_are_not(upstream: Upstream) -> None:
    """The upstream sees the processor's headers; a client's travel on only where they are named."""
    sent = (("x-api-key", "from-client"), ("x-tenant", "acme"), ("x-note-bin", b"\0\xff"))
    async with running(upstream_endpoint=upstream.endpoint, upstream_headers="x-api-key=ours") as processor:
        await export(processor.target, request(root()), metadata=sent)
    async with running(upstream_endpoint=upstream.endpoint, forward_headers="X-Api-Key, x-note-bin") as processor:
        await export(processor.target, request(root()), metadata=sent)
    async with running(
        upstream_endpoint=upstream.endpoint, upstream_headers="x-api-key=ours", forward_headers="x-api-key"
    ) as processor:
        await export(processor.target, request(root()), metadata=sent)
    seen = [
        {key: value for key, value in received.headers.items() if key.startswith("x-")}
        for received in upstream.received
    ]
    assert seen == [
        {"x-api-key": "ours"},
        {"x-api-key": "from-client", "x-note-bin": b"\0\xff"},
        {"x-api-key": "ours"},
    ]


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_requests_are_compressed_towards_the_upstream_where_asked(upstream: Upstream, compression: str) -> None:
    """The upstream reads the same bytes, compressed or not."""
    body = request(root("x" * 10_000))
    async with running(upstream_endpoint=upstream.endpoint, upstream_compression=compression) as processor:
        await export(processor.target, body)
    assert upstream.bodies == [body]


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_the_sdk_s_exporter_delivers_through_the_processor(
    upstream: Upstream, compression: grpc.Compression
) -> None:
    """OpenTelemetry's own OTLP/gRPC exporter is a client like any other, plain and compressed."""
    async with running(upstream_endpoint=upstream.endpoint) as processor:

        def application() -> None:
            provider = TracerProvider(shutdown_on_exit=False)
            exporter = OTLPSpanExporter(processor.target, insecure=True, compression=compression)
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            tracer = provider.get_tracer("tests")
            with (
                tracer.start_as_current_span("root", attributes={END_USER: "u_1"}),
                tracer.start_as_current_span("child", attributes={END_USER: "u_2"}),
            ):
                pass
            provider.shutdown()

        await asyncio.to_thread(application)
    found = [names_and_end_users(body) for body in upstream.bodies]
    assert found == [{"child": None}, {"root": "u_1"}]


async def test_a_unix_socket_serves_and_is_reached(
    upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Both ends may be socket files: two processors in a row over one."""
    path = tmp_path_factory.mktemp("s") / "otlp.sock"
    async with (
        running(upstream_endpoint=upstream.endpoint, grpc_listen=f"unix:{path}") as second,
        running(upstream_endpoint=second.target) as first,
    ):
        await export(first.target, request(root()))
    assert len(upstream.received) == 1


async def test_https_speaks_tls_with_a_trusted_upstream() -> None:
    """The scheme switches TLS on, and a private authority is trusted where its file is named."""
    async with Upstream(tls=(TLS / "localhost.key", TLS / "localhost.pem")) as upstream:
        endpoint = f"https://localhost:{upstream.port}"
        async with running(upstream_endpoint=endpoint, upstream_ca_file=str(TLS / "localhost.pem")) as processor:
            assert await export(processor.target, request(root())) == b""
        async with running(upstream_endpoint=endpoint, upstream_timeout="300ms") as processor:
            error = await refused(processor.target, request(root()))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert len(upstream.received) == 1


async def test_a_closed_exporter_is_unavailable_not_broken(upstream: Upstream) -> None:
    """A request that meets a closing processor gets a retryable answer."""
    exporter = OtlpGrpcExporter(Endpoint.parse(upstream.endpoint), headers={})
    await exporter.close()
    with pytest.raises(UpstreamUnavailableError, match="closed"):
        await exporter.send(Request(Signal.TRACES, b""))
