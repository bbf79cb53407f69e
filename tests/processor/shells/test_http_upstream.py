"""From a client through the processor to an upstream that speaks OTLP/HTTP."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
from email.utils import formatdate
from pathlib import Path

import grpc
import httpx
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from neatlogs_processor import wiring
from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.errors import MalformedOtlpError, UpstreamUnavailableError
from neatlogs_processor.exporters.otlp_http import OtlpHttpExporter
from neatlogs_processor.formats import Endpoint
from neatlogs_processor.settings import load
from support.http_upstream import PROTOBUF, HttpReply, HttpUpstream
from support.processor import Running, running, until
from support.spans import child, names_and_end_users, request, root
from support.upstream import Reply, Upstream, export, refused

PLAIN = (("content-type", "text/plain"),)
HTTP = {"upstream_protocol": "http/protobuf"}
DETAILS, RETRY_INFO = "grpc-status-details-bin", "google.rpc.retryinfo-bin"


async def post(processor: Running, body: bytes, signal: str = "traces", **headers: str) -> httpx.Response:
    """Send a request to the processor's HTTP receiver."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.post(
            f"http://{processor.http}/v1/{signal}", content=body, headers={"content-type": PROTOBUF, **named}
        )


@pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])
@pytest.mark.parametrize("base", ["", "/otlp"])
async def test_requests_go_to_the_base_and_the_signal_s_path(signal: str, base: str) -> None:
    """The same bytes arrive as protobuf at base plus v1/<signal>, and nothing of the client's headers with them."""
    body = request(root(neatlogs__end_user__id="u_1"))
    async with HttpUpstream() as upstream, running(upstream_endpoint=upstream.endpoint + base, **HTTP) as processor:
        assert await export(processor.target, body, signal=signal, metadata=(("x-api-key", "theirs"),)) == b""
    (received,) = upstream.received
    assert (received.path, received.body) == (f"{base}/v1/{signal}", body)
    assert received.headers["content-type"] == PROTOBUF
    assert received.headers["user-agent"].startswith("neatlogs-processor/")
    assert "x-api-key" not in received.headers


async def test_the_rule_holds_whatever_the_transports() -> None:
    """Each receiver feeds each exporter, and no override comes through."""
    body = request(root(neatlogs__end_user__id="u_1"), child(neatlogs__end_user__id="u_2"))
    async with HttpUpstream() as http, Upstream() as over_grpc:
        for upstream, flags in ((http, HTTP), (over_grpc, {})):
            async with running(upstream_endpoint=upstream.endpoint, **flags) as processor:
                await export(processor.target, body)
                assert (await post(processor, body)).status_code == 200
        bodies = [*http.bodies, *over_grpc.bodies]
    assert [names_and_end_users(body) for body in bodies] == [{"root": "u_1", "child": None}] * 4


async def test_connections_are_kept() -> None:
    """Requests one after the other share a connection, refused ones included."""
    replies = (HttpReply(), HttpReply(400, b"no", PLAIN), HttpReply())
    async with HttpUpstream(*replies) as upstream, running(upstream_endpoint=upstream.endpoint, **HTTP) as processor:
        await export(processor.target, request(root()))
        await refused(processor.target, request(root()))
        await export(processor.target, request(root()))
    assert [received.connection for received in upstream.received] == [0, 0, 0]


async def test_a_kept_connection_that_the_upstream_has_closed_costs_nothing() -> None:
    """A request that meets a closed connection is sent again on a new one."""
    async with HttpUpstream() as upstream, running(upstream_endpoint=upstream.endpoint, **HTTP) as processor:
        await export(processor.target, request(root()))
        upstream.hang_up()
        await export(processor.target, request(root()))
    assert len(upstream.received) == 2


@pytest.mark.parametrize("size", [10_000, 400_000])
async def test_requests_are_compressed_where_asked(size: int) -> None:
    """gzip on the wire, the same bytes after it, for small requests and large ones."""
    body = request(root("x" * size))
    async with (
        HttpUpstream() as upstream,
        running(upstream_endpoint=upstream.endpoint, upstream_compression="gzip", **HTTP) as processor,
    ):
        await export(processor.target, body)
    (received,) = upstream.received
    assert received.headers["content-encoding"] == "gzip"
    assert len(received.sent) < size / 5
    assert received.body == body


async def test_configured_headers_win_and_named_ones_travel_on() -> None:
    """As over gRPC; a binary header travels as gRPC writes it, in base64."""
    sent = (("x-api-key", "from-client"), ("x-tenant", "acme"), ("x-note-bin", b"\0\xff"))
    async with (
        HttpUpstream() as upstream,
        running(
            upstream_endpoint=upstream.endpoint,
            upstream_headers="x-api-key=ours",
            forward_headers="x-api-key,x-tenant,x-note-bin",
            **HTTP,
        ) as processor,
    ):
        await export(processor.target, request(root()), metadata=sent)
    headers = upstream.received[0].headers
    assert (headers["x-api-key"], headers["x-tenant"], headers["x-note-bin"]) == ("ours", "acme", "AP8=")


async def test_a_binary_header_travels_from_http_to_grpc() -> None:
    """Its base64 becomes bytes again; what is no base64 is refused, because gRPC could not carry it."""
    async with (
        Upstream() as upstream,
        running(upstream_endpoint=upstream.endpoint, forward_headers="x-note-bin") as processor,
    ):
        assert (await post(processor, request(root()), x_note_bin="AP8")).status_code == 200
        assert (await post(processor, request(root()), x_note_bin="!")).status_code == 400
    assert [received.headers["x-note-bin"] for received in upstream.received] == [b"\0\xff"]


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("value", ["a\rb", "a\nb", "a\0b", "\x7f", "é"])
async def test_a_header_that_could_smuggle_does_not_travel(protocol: str, value: str) -> None:
    """Line ends, NUL and all that is not printable ASCII are refused by name, over either protocol."""
    flags = {"upstream_endpoint": "http://localhost:1", "upstream_protocol": protocol, "forward_headers": "x-a"}
    exporter = wiring.exporter(load(flags, {}).settings)
    assert exporter is not None
    with pytest.raises(MalformedOtlpError, match="x-a"):
        await exporter.send(Request(Signal.TRACES, b"", (("x-a", value),)))
    await exporter.close()


async def test_partial_success_comes_back_to_either_client() -> None:
    """The upstream's response passes as it came, unknown fields included."""
    partial = ExportTracePartialSuccess(rejected_spans=3, error_message="three were too old")
    response = ExportTraceServiceResponse(partial_success=partial).SerializeToString() + b"\xa0\x06\x01"
    reply = HttpReply(body=response)
    async with HttpUpstream(reply) as upstream, running(upstream_endpoint=upstream.endpoint, **HTTP) as processor:
        assert await export(processor.target, request(root())) == response
        assert (await post(processor, request(root()))).content == response


@pytest.mark.parametrize(
    "reply",
    [
        HttpReply(204, b"", ()),
        HttpReply(202, b"taken", PLAIN),
        HttpReply(200, b"{}", (("content-type", "application/json"),)),
    ],
)
async def test_any_2xx_is_accepted(reply: HttpReply) -> None:
    """An upstream that accepts with a body of its own has accepted."""
    async with HttpUpstream(reply) as upstream, running(upstream_endpoint=upstream.endpoint, **HTTP) as processor:
        assert await export(processor.target, request(root())) == b""


PERMANENT = [
    (400, grpc.StatusCode.INVALID_ARGUMENT, 400),
    (401, grpc.StatusCode.UNAUTHENTICATED, 401),
    (403, grpc.StatusCode.PERMISSION_DENIED, 403),
    (404, grpc.StatusCode.UNIMPLEMENTED, 404),
    (408, grpc.StatusCode.FAILED_PRECONDITION, 400),
    (413, grpc.StatusCode.RESOURCE_EXHAUSTED, 413),
    (415, grpc.StatusCode.FAILED_PRECONDITION, 400),
    (500, grpc.StatusCode.INTERNAL, 500),
    (501, grpc.StatusCode.UNIMPLEMENTED, 404),
    (505, grpc.StatusCode.INTERNAL, 500),
]


@pytest.mark.parametrize(("status", "code", "back"), PERMANENT)
async def test_a_refusal_is_not_tried_again(status: int, code: grpc.StatusCode, back: int) -> None:
    """What OTLP does not list as retryable is permanent for the client, with the upstream's words, after one try."""
    # A Retry-After does not make it retryable.
    reply = HttpReply(status, b"its own words", (*PLAIN, ("retry-after", "1")))
    async with HttpUpstream(reply) as upstream, running(upstream_endpoint=upstream.endpoint, **HTTP) as processor:
        error = await refused(processor.target, request(root()))
        response = await post(processor, request(root()))
    assert (error.code(), error.details()) == (code, f"the upstream answered HTTP {status}: its own words")
    assert RETRY_INFO not in dict(error.trailing_metadata())
    assert (response.status_code, "retry-after" in response.headers) == (back, False)
    assert "its own words" in Status.FromString(response.content).message
    assert len(upstream.received) == 2


@pytest.mark.parametrize(
    ("status", "form"),
    [(429, "none"), (502, "none"), (503, "none"), (504, "none"), (429, "seconds"), (503, "date")],
)
async def test_what_is_retryable_is_tried_again_when_the_upstream_says(status: int, form: str) -> None:
    """The four retryable statuses are tried again: with Retry-After no earlier, and by the backoff without it."""
    after = {"none": (), "seconds": (("retry-after", "1"),), "date": (("retry-after", formatdate(time.time() + 2)),)}
    reply = HttpReply(status, b"", (*PLAIN, *after[form]))
    async with (
        HttpUpstream(reply, HttpReply()) as upstream,
        running(upstream_endpoint=upstream.endpoint, upstream_timeout="20s", **HTTP) as processor,
    ):
        began = time.monotonic()
        assert await export(processor.target, request(root())) == b""
        took = time.monotonic() - began
    assert len(upstream.received) == 2
    assert form == "none" or took >= 0.9


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_delay_over_the_budget_goes_to_the_client(status: int, form: str) -> None:
    """A client of either protocol is told to come back, and when."""
    value = "600" if form == "seconds" else formatdate(time.time() + 600, usegmt=True)
    reply = HttpReply(status, b"", (("retry-after", value),))
    async with HttpUpstream(reply) as upstream, running(upstream_endpoint=upstream.endpoint, **HTTP) as processor:
        error = await refused(processor.target, request(root()))
        response = await post(processor, request(root()))
    delay = RetryInfo.FromString(dict(error.trailing_metadata())[RETRY_INFO]).retry_delay.seconds
    assert 500 <= delay <= 600
    assert error.code() in {
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
    assert response.status_code == {429: 429, 504: 504}.get(status, 503)
    assert 500 <= int(response.headers["retry-after"]) <= 600
    assert len(upstream.received) == 2


async def test_429_without_a_delay_stays_retryable_for_grpc_clients() -> None:
    """RESOURCE_EXHAUSTED without RetryInfo would mean never again, so the client gets UNAVAILABLE."""
    async with (
        HttpUpstream(HttpReply(429)) as upstream,
        running(upstream_endpoint=upstream.endpoint, upstream_timeout="300ms", **HTTP) as processor,
    ):
        error = await refused(processor.target, request(root()))
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_an_error_s_status_message_and_details_come_back() -> None:
    """A google.rpc.Status in the body reaches a gRPC client as its status, in either encoding of the body."""
    status = Status(code=3, message="span 7 is older than the retention")
    detail = RetryInfo()
    status.details.add().Pack(detail)
    json = b'{"code": 3, "message": "span 7 is older than the retention"}'
    replies = (
        HttpReply(400, status.SerializeToString()),
        HttpReply(400, json, (("content-type", "application/json; charset=utf-8"),)),
    )
    async with HttpUpstream(*replies) as upstream, running(upstream_endpoint=upstream.endpoint, **HTTP) as processor:
        first = await refused(processor.target, request(root()))
        second = await refused(processor.target, request(root()))
    for error in (first, second):
        assert error.details() == "the upstream answered HTTP 400: span 7 is older than the retention"
        details = Status.FromString(dict(error.trailing_metadata())[DETAILS])
        assert (details.code, details.message) == (3, error.details())
    assert len(Status.FromString(dict(first.trailing_metadata())[DETAILS]).details) == 1


@pytest.mark.parametrize(
    "reply",
    [
        HttpReply(400, b"\x1b[31m\r\n" + b"x" * 5000, PLAIN),
        HttpReply(400, b"<html>a page</html>", (("content-type", "text/html"),)),
        HttpReply(400, b"\xff\xff no status", (("content-type", PROTOBUF),)),
        HttpReply(400, b"[" * 50_000, (("content-type", "application/json"),)),
        HttpReply(400, b'{"message": 7}', (("content-type", "application/json"),)),
        HttpReply(400, b'"text"', (("content-type", "application/json"),)),
        HttpReply(400, b"x" * 100_000, PLAIN),
        HttpReply(400, gzip.compress(bytes(50_000_000)), (*PLAIN, ("content-encoding", "gzip"))),
        HttpReply(400, b"no gzip", (*PLAIN, ("content-encoding", "gzip"))),
        HttpReply(400, b"what", (*PLAIN, ("content-encoding", "br"))),
    ],
)
async def test_an_error_body_of_any_kind_is_harmless(reply: HttpReply) -> None:
    """Terminal codes are escaped, long text is cut, pages and nonsense are left out; the status stands."""
    async with HttpUpstream(reply) as upstream, running(upstream_endpoint=upstream.endpoint, **HTTP) as processor:
        error = await refused(processor.target, request(root()))
    details = error.details() or ""
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith("the upstream answered HTTP 400")
    assert details.isprintable()
    assert len(details) <= 1024
    assert "html" not in details


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    """Headers, keys among them, do not travel to where an upstream points; the message says what happened."""
    async with HttpUpstream() as elsewhere:
        reply = HttpReply(status, b"", (("location", f"{elsewhere.endpoint}/v1/traces"),))
        async with (
            HttpUpstream(reply) as upstream,
            running(upstream_endpoint=upstream.endpoint, upstream_headers="x-api-key=ours", **HTTP) as processor,
        ):
            error = await refused(processor.target, request(root()))
        assert elsewhere.received == []
    assert "redirects are not followed" in (error.details() or "")
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_a_response_over_the_limit_is_not_kept(compressed: bool, protocol: str) -> None:
    """It fails for good, as OTLP says: the upstream has accepted, so sending again would deliver twice."""
    large = b"\xaa\x06\x80\x80\xc0\x02" + bytes(0x500000)
    body, headers = large, (("content-type", PROTOBUF),)
    if compressed:
        body, headers = gzip.compress(large), (*headers, ("content-encoding", "gzip"))
    flags = {"upstream_protocol": protocol}
    if protocol == "grpc":
        async with (
            Upstream(Reply(response=large)) as upstream,
            running(upstream_endpoint=upstream.endpoint, **flags) as processor,
        ):
            error = await refused(processor.target, request(root()))
            count = len(upstream.received)
    else:
        async with (
            HttpUpstream(HttpReply(200, body, headers)) as http,
            running(upstream_endpoint=http.endpoint, **flags) as processor,
        ):
            error = await refused(processor.target, request(root()))
            count = len(http.received)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert count == 1


async def test_a_compressed_response_is_read() -> None:
    """gzip is asked for and understood."""
    response = ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=1)
    ).SerializeToString()
    reply = HttpReply(200, gzip.compress(response), (("content-type", PROTOBUF), ("content-encoding", "gzip")))
    async with HttpUpstream(reply) as upstream, running(upstream_endpoint=upstream.endpoint, **HTTP) as processor:
        assert await export(processor.target, request(root())) == response
    assert upstream.received[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", b"SSH-2.0\r\n\r\n"])
async def test_an_upstream_that_breaks_off_is_unavailable(raw: bytes) -> None:
    """No answer, half an answer and no HTTP at all are temporary, and say nothing of the request."""
    async with (
        HttpUpstream(HttpReply(raw=raw)) as upstream,
        running(upstream_endpoint=upstream.endpoint, upstream_timeout="500ms", **HTTP) as processor,
    ):
        error = await refused(processor.target, request(root()))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "cannot be reached" in (error.details() or "")


async def test_an_upstream_that_never_answers_is_unavailable_within_the_budget() -> None:
    """A timeout of ours is retryable for the client."""
    never = asyncio.Event()
    async with (
        HttpUpstream(HttpReply(after=never)) as upstream,
        running(upstream_endpoint=upstream.endpoint, upstream_timeout="200ms", **HTTP) as processor,
    ):
        error = await refused(processor.target, request(root()))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "did not answer in time" in (error.details() or "")
    assert len(upstream.received) == 1


async def test_an_upstream_that_is_not_there_is_found_when_it_comes() -> None:
    """A request waits for an upstream that starts within its budget."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    async with running(upstream_endpoint=f"http://localhost:{port}", upstream_timeout="20s", **HTTP) as processor:
        delivery = asyncio.create_task(export(processor.target, request(root())))
        await until(lambda: processor.service.telemetry.counters.retries.total() > 0)
        async with HttpUpstream(port=port) as upstream:
            assert await delivery == b""
            assert len(upstream.received) == 1


async def test_a_client_that_leaves_ends_its_request_at_the_upstream() -> None:
    """The connection to the upstream is closed, not left to answer nobody."""
    never = asyncio.Event()
    async with (
        HttpUpstream(HttpReply(after=never), HttpReply()) as upstream,
        running(upstream_endpoint=upstream.endpoint, upstream_timeout="60s", **HTTP) as processor,
    ):
        first = asyncio.create_task(export(processor.target, request(root())))
        await upstream.wait_for(1)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        counters = processor.service.telemetry.counters
        await until(lambda: counters.requests.get("traces", "client_gone") == 1)
        await export(processor.target, request(root()))
    assert [received.connection for received in upstream.received] == [0, 1]


async def test_a_withheld_api_key_is_explained() -> None:
    """As over gRPC, the message names the flag and not the key."""
    async with (
        HttpUpstream(HttpReply(401, b"", PLAIN)) as upstream,
        running(upstream_endpoint=upstream.endpoint, **HTTP) as processor,
    ):
        error = await refused(processor.target, request(root()), metadata=(("x-api-key", "secret"),))
    assert "--forward-headers x-api-key" in (error.details() or "")
    assert "secret" not in (error.details() or "")


async def test_a_unix_socket_is_reached(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An upstream on the same machine may listen on a socket file."""
    path: Path = tmp_path_factory.mktemp("s") / "otlp.sock"
    async with HttpUpstream(path=path) as upstream, running(upstream_endpoint=upstream.endpoint, **HTTP) as processor:
        await export(processor.target, request(root()))
    assert upstream.received[0].path == "/v1/traces"


async def test_a_closed_exporter_is_unavailable_not_broken() -> None:
    """A request that meets a closing processor gets a retryable answer, and so does one without time left."""
    exporter = OtlpHttpExporter(Endpoint.parse("http://localhost:1"), headers={})
    with pytest.raises(UpstreamUnavailableError, match="in time"):
        await exporter.send(Request(Signal.TRACES, b"", deadline=0.0))
    await exporter.close()
    with pytest.raises(UpstreamUnavailableError, match="closed"):
        await exporter.send(Request(Signal.TRACES, b""))
