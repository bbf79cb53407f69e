"""What a client is told when the upstream says no, says nothing, or is not there."""

from __future__ import annotations

import asyncio
import socket

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from support.processor import running, until
from support.spans import request, root
from support.upstream import Reply, Upstream, export, refused

DETAILS, RETRY_INFO = "grpc-status-details-bin", "google.rpc.retryinfo-bin"
FAILURES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
ALWAYS_RETRYABLE = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
}


def refusal(code: grpc.StatusCode, *, retry_after: float | None = None, **options: asyncio.Event) -> Reply:
    number: int = code.value[0]
    status = Status(code=number, message="the upstream's own words")
    if retry_after is not None:
        info = RetryInfo()
        info.retry_delay.FromNanoseconds(int(retry_after * 1e9))
        status.details.add().Pack(info)
    return Reply(code=code, message=status.message, trailers=((DETAILS, status.SerializeToString()),), **options)


@pytest.mark.parametrize("code", FAILURES, ids=lambda code: code.name)
async def test_a_failure_is_tried_again_only_where_the_specification_allows(code: grpc.StatusCode) -> None:
    """After a retryable code a second try delivers; after any other the client hears it at once, as it was said."""
    async with Upstream(refusal(code), Reply()) as upstream, running(upstream_endpoint=upstream.endpoint) as processor:
        if code in ALWAYS_RETRYABLE:
            assert await export(processor.target, request(root())) == b""
            assert processor.service.telemetry.counters.retries.total() == 1
        else:
            error = await refused(processor.target, request(root()))
            assert (error.code(), error.details()) == (code, "the upstream's own words")
            assert dict(error.trailing_metadata()) == dict(refusal(code).trailers)
    assert len(upstream.received) == (2 if code in ALWAYS_RETRYABLE else 1)
    assert len(set(upstream.bodies)) == 1


@pytest.mark.parametrize("code", FAILURES, ids=lambda code: code.name)
async def test_a_delay_beyond_the_budget_is_the_client_s_to_wait(code: grpc.StatusCode) -> None:
    """An upstream that asks for more time than the budget holds is not asked again; its answer goes to the client."""
    reply = refusal(code, retry_after=600)
    async with Upstream(reply, Reply()) as upstream, running(upstream_endpoint=upstream.endpoint) as processor:
        error = await refused(processor.target, request(root()))
    trailers = dict(error.trailing_metadata())
    assert (error.code(), error.details()) == (code, "the upstream's own words")
    assert trailers[DETAILS] == dict(reply.trailers)[DETAILS]
    assert RetryInfo.FromString(trailers[RETRY_INFO]).retry_delay.seconds == 600
    assert len(upstream.received) == 1


async def test_resource_exhausted_with_retry_info_is_tried_again() -> None:
    """RESOURCE_EXHAUSTED is temporary where the upstream says when to come back."""
    reply = refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after=0.01)
    async with Upstream(reply, Reply()) as upstream, running(upstream_endpoint=upstream.endpoint) as processor:
        assert await export(processor.target, request(root())) == b""
    assert len(upstream.received) == 2


@pytest.mark.parametrize("code", sorted(ALWAYS_RETRYABLE, key=lambda code: code.name), ids=lambda code: code.name)
async def test_a_lasting_temporary_failure_stays_temporary(code: grpc.StatusCode) -> None:
    """When the budget is spent, the client gets a code that it may retry."""
    async with (
        Upstream(refusal(code)) as upstream,
        running(upstream_endpoint=upstream.endpoint, upstream_timeout="300ms") as processor,
    ):
        error = await refused(processor.target, request(root()))
        assert processor.service.telemetry.counters.spans_refused.get("upstream_unavailable") == 1
    assert error.code() in {code, grpc.StatusCode.UNAVAILABLE}


async def test_an_upstream_that_never_answers_is_unavailable_within_the_budget() -> None:
    """A timeout of ours is retryable for the client, which hears of it before its own deadline."""
    never = asyncio.Event()
    async with (
        Upstream(Reply(after=never)) as upstream,
        running(upstream_endpoint=upstream.endpoint, upstream_timeout="200ms") as processor,
    ):
        error = await refused(processor.target, request(root()))
        never.set()
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "did not answer in time" in (error.details() or "")
    assert len(upstream.received) == 1


async def test_the_answer_is_out_before_the_client_s_deadline() -> None:
    """The budget ends before the client gives up, so it gets our answer, not its own DEADLINE_EXCEEDED."""
    never = asyncio.Event()
    async with (
        Upstream(Reply(after=never)) as upstream,
        running(upstream_endpoint=upstream.endpoint, upstream_timeout="60s") as processor,
    ):
        error = await refused(processor.target, request(root()), timeout=3)
        never.set()
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_an_upstream_that_is_not_there_is_unavailable_and_found_when_it_comes() -> None:
    """A processor whose upstream is down starts, answers with a retryable code, and recovers by itself."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    async with running(upstream_endpoint=f"127.0.0.1:{port}", upstream_timeout="300ms") as processor:
        error = await refused(processor.target, request(root()))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        # A client reads it as an error of the processor's address otherwise.
        assert str(error.details()).startswith(f"the upstream http://127.0.0.1:{port} cannot be reached: ")
    async with running(upstream_endpoint=f"127.0.0.1:{port}", upstream_timeout="20s") as processor:
        delivery = asyncio.create_task(export(processor.target, request(root())))
        async with Upstream(port=port) as upstream:
            assert await delivery == b""
            assert len(upstream.received) == 1


@pytest.mark.parametrize(
    ("metadata", "flags", "hinted"),
    [
        ((("x-api-key", "secret"),), {}, True),
        ((("x-api-key", "secret"),), {"forward_headers": "x-api-key"}, False),
        ((("x-api-key", "secret"),), {"upstream_headers": "x-api-key=ours"}, False),
        ((), {}, False),
    ],
)
async def test_a_withheld_api_key_is_explained(
    metadata: tuple[tuple[str, str | bytes], ...], flags: dict[str, str], hinted: bool
) -> None:
    """Where a client's key was not passed on and the upstream wants one, the message names the flag, never the key."""
    reply = refusal(grpc.StatusCode.UNAUTHENTICATED)
    async with Upstream(reply) as upstream, running(upstream_endpoint=upstream.endpoint, **flags) as processor:
        error = await refused(processor.target, request(root()), metadata=metadata)
    details = error.details() or ""
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert ("--forward-headers x-api-key" in details) is hinted
    assert "secret" not in details
    assert Status.FromString(dict(error.trailing_metadata())[DETAILS]).message == details


async def test_requests_past_the_limit_are_asked_to_come_back() -> None:
    """Overload is UNAVAILABLE with a delay of one to two seconds in both forms, and ends when a request ends."""
    accept = asyncio.Event()
    async with (
        Upstream(Reply(after=accept), Reply()) as upstream,
        running(upstream_endpoint=upstream.endpoint, max_concurrent_requests=1) as processor,
    ):
        first = asyncio.create_task(export(processor.target, request(root())))
        await upstream.wait_for(1)
        error = await refused(processor.target, request(root()))
        accept.set()
        await first
        await export(processor.target, request(root()))
        assert processor.service.telemetry.counters.requests.get("traces", "overloaded") == 1
    trailers = dict(error.trailing_metadata())
    beside, inside = RetryInfo.FromString(trailers[RETRY_INFO]), RetryInfo()
    assert Status.FromString(trailers[DETAILS]).details[0].Unpack(inside)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert inside == beside
    assert 1 <= beside.retry_delay.ToNanoseconds() / 1e9 < 2
    assert len(upstream.received) == 2


async def test_the_sdk_s_exporter_waits_as_told_and_delivers() -> None:
    """Python's exporter reads our RetryInfo: a delay past the budget is waited for by the client, then delivered."""
    reply = refusal(grpc.StatusCode.UNAVAILABLE, retry_after=1)
    async with (
        Upstream(reply, Reply()) as upstream,
        running(upstream_endpoint=upstream.endpoint, upstream_timeout="900ms") as processor,
    ):

        def application() -> None:
            provider = TracerProvider(shutdown_on_exit=False)
            provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(processor.target, insecure=True)))
            provider.get_tracer("tests").start_span("root").end()
            provider.shutdown()

        await asyncio.to_thread(application)
    assert len(upstream.received) == 2
    assert len(set(upstream.bodies)) == 1


async def test_a_client_that_leaves_ends_its_request() -> None:
    """A request whose client is gone is not held, and its place is free for the next."""
    never = asyncio.Event()
    async with (
        Upstream(Reply(after=never), Reply()) as upstream,
        running(upstream_endpoint=upstream.endpoint, max_concurrent_requests=1, upstream_timeout="60s") as processor,
    ):
        first = asyncio.create_task(export(processor.target, request(root())))
        await upstream.wait_for(1)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        counters = processor.service.telemetry.counters
        await until(lambda: counters.requests.get("traces", "client_gone") == 1)
        await export(processor.target, request(root()))
        never.set()
    assert counters.requests.get("traces", "ok") == 1
