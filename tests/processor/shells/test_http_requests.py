"""OTLP/HTTP as the specification describes it: paths, forms, encodings, answers."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.errors import (
    ConfigError,
    MalformedOtlpError,
    NoDestinationError,
    OverloadedError,
    PermissionDeniedError,
    ProcessorError,
    RateLimitedError,
    RequestTooLargeError,
    UnauthenticatedError,
    UpstreamRejectedError,
    UpstreamUnavailableError,
)
from neatlogs_processor.receivers.http_body import BodyLimits
from support.http_receiver import Received, http_receiver, read_to_end, status_of, with_limits
from support.otlp_json import to_otlp_json
from support.spans import child, request, root

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}
BODY = request(root("chat"), child("tool"))
TEXT = json.dumps(to_otlp_json(ExportTraceServiceRequest.FromString(BODY))).encode()


@pytest.fixture
async def received() -> AsyncIterator[Received]:
    async with http_receiver() as running:
        yield running


def answered(response: httpx.Response) -> Status:
    """The `google.rpc.Status` of a refusal, whichever form it is in."""
    if response.headers["content-type"] == "application/x-protobuf":
        return Status.FromString(response.content)
    document = response.json()
    return Status(code=document["code"], message=document["message"])


@pytest.mark.parametrize("signal", Signal)
async def test_protobuf_arrives_as_the_same_bytes(received: Received, signal: Signal) -> None:
    """Each signal has its path; a protobuf body is handed on unread and answered in protobuf."""
    response = await received.client.post(f"/v1/{signal.value}", content=b"\xff not read", headers=PROTOBUF)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/x-protobuf")
    assert response.content == b""
    assert [(one.signal, one.body, one.deadline) for one in received.requests] == [(signal, b"\xff not read", None)]


@pytest.mark.parametrize("signal", Signal)
async def test_json_arrives_as_protobuf(received: Received, signal: Signal) -> None:
    """A JSON body of each signal becomes protobuf, and the answer is JSON."""
    response = (
        await received.client.post(
            f"/v1/{signal.value}", content=b'{"resource%s":[{}]}' % signal.value.title().encode(), headers=JSON
        )
        if signal is not Signal.TRACES
        else await received.client.post("/v1/traces", content=TEXT, headers=JSON)
    )
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json() == {}
    (one,) = received.requests
    if signal is Signal.TRACES:
        assert ExportTraceServiceRequest.FromString(one.body) == ExportTraceServiceRequest.FromString(BODY)
    else:
        assert one.body == b"\x0a\x00"


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "Application/JSON", "application/json ; charset=UTF-8"],
)
async def test_media_types_are_compared_without_parameters_and_case(received: Received, content_type: str) -> None:
    """What follows the media type, and how it is written, does not matter."""
    response = await received.client.post("/v1/traces", content=TEXT, headers={"content-type": content_type})
    assert response.status_code == 200


@pytest.mark.parametrize("headers", [PROTOBUF, JSON])
async def test_an_empty_body_is_an_empty_request(received: Received, headers: dict[str, str]) -> None:
    """Nothing at all is an OTLP request with nothing in it."""
    assert (await received.client.post("/v1/traces", headers=headers)).status_code == 200
    assert [one.body for one in received.requests] == [b""]


async def test_long_json_is_read_beside_the_event_loop(received: Received) -> None:
    """A JSON body of hundreds of kilobytes arrives whole."""
    body = request(*(child(f"span {number}") for number in range(2000)))
    text = json.dumps(to_otlp_json(ExportTraceServiceRequest.FromString(body))).encode()
    assert (await received.client.post("/v1/traces", content=text, headers=JSON)).status_code == 200
    assert ExportTraceServiceRequest.FromString(received.requests[0].body) == ExportTraceServiceRequest.FromString(body)


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("gzip", gzip.compress(BODY)),
        ("GZIP", gzip.compress(BODY)),
        ("x-gzip", gzip.compress(BODY)),
        ("gzip", gzip.compress(BODY[:7]) + gzip.compress(BODY[7:]) + gzip.compress(b"")),
        ("identity", BODY),
        ("", BODY),
    ],
    ids=["gzip", "upper-case", "x-gzip", "three-members", "identity", "empty"],
)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_content_encodings_are_undone(received: Received, encoding: str, content: bytes, chunked: bool) -> None:
    """gzip of one or several members, and no encoding, with and without a length, are the same request."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 5):
            yield content[start : start + 5]

    response = await received.client.post(
        "/v1/traces", content=pieces() if chunked else content, headers={**PROTOBUF, "content-encoding": encoding}
    )
    assert response.status_code == 200
    assert [one.body for one in received.requests] == [BODY]


@pytest.mark.parametrize("headers", [PROTOBUF, JSON])
@pytest.mark.parametrize(
    "content",
    [BODY, gzip.compress(BODY) + b"garbage", gzip.compress(BODY)[:-3], gzip.compress(BODY) + b"\0\0"],
    ids=["not-gzip", "trailing-garbage", "cut-off", "trailing-zeros"],
)
async def test_broken_gzip_is_refused(received: Received, content: bytes, headers: dict[str, str]) -> None:
    """What is not gzip to its last byte is 400, in the form of the request, and nothing of it goes on."""
    response = await received.client.post(
        "/v1/traces", content=content, headers={**headers, "content-encoding": "gzip"}
    )
    assert response.status_code == 400
    assert response.headers["content-type"] == headers["content-type"]
    assert answered(response).code == 3
    assert received.requests == []
    assert received.refused == [(Signal.TRACES, "malformed")]


async def test_json_that_is_no_otlp_is_refused_with_its_place(received: Received) -> None:
    """The answer says where in the document the mistake is."""
    text = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"not hex"}]}]}]}'
    response = await received.client.post("/v1/traces", content=text, headers=JSON)
    assert response.status_code == 400
    assert "resourceSpans[0].scopeSpans[0].spans[0].traceId" in answered(response).message
    assert received.requests == []


@pytest.mark.parametrize("encoding", ["deflate", "zstd", "br", "gzip, gzip"])
async def test_other_content_encodings_are_415(received: Received, encoding: str) -> None:
    """The answer says which encoding would do."""
    response = await received.client.post(
        "/v1/traces", content=b"x", headers={**PROTOBUF, "content-encoding": encoding}
    )
    assert (response.status_code, response.headers["accept-encoding"]) == (415, "gzip")
    assert "gzip" in answered(response).message


@pytest.mark.parametrize("content_type", ["text/plain", "application/grpc", "", "application/x-www-form-urlencoded"])
async def test_other_media_types_are_415(received: Received, content_type: str) -> None:
    """The answer, which is JSON where the request was neither, names the two that would do."""
    response = await received.client.post("/v1/traces", content=BODY, headers={"content-type": content_type})
    assert response.status_code == 415
    assert "application/x-protobuf" in answered(response).message
    assert response.headers["content-type"] == "application/json"
    assert received.refused == [(Signal.TRACES, "not_otlp_http")]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD"])
async def test_other_methods_are_405(received: Received, method: str) -> None:
    """Only POST is allowed, and `Allow` says so."""
    response = await received.client.request(method, "/v1/traces", headers=PROTOBUF)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    "path", ["/", "/v1/traces/", "/v1/profiles", "/v1", "/V1/traces", "/v1/traces%00", "//v1/traces"]
)
@pytest.mark.parametrize("headers", [PROTOBUF, JSON])
async def test_other_paths_are_404(received: Received, path: str, headers: dict[str, str]) -> None:
    """An unknown path is answered in the request's form with the paths that there are."""
    url = f"http://{received.address}{path}"
    response = await received.client.post(url, content=BODY, headers=headers)
    assert response.status_code == 404
    assert response.headers["content-type"] == headers["content-type"]
    assert "/v1/traces" in answered(response).message
    assert received.http_refused == ["unknown_path"]


async def test_a_query_does_not_matter(received: Received) -> None:
    """A path with a query is the path."""
    assert (await received.client.post("/v1/traces?x=1", content=BODY, headers=PROTOBUF)).status_code == 200


@pytest.mark.parametrize("headers", [PROTOBUF, JSON])
@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (MalformedOtlpError("bad"), 400, None),
        (NoDestinationError("nowhere"), 404, None),
        (RequestTooLargeError("big"), 413, None),
        (OverloadedError("full", retry_after=1.25), 503, "2"),
        (RateLimitedError("slower", retry_after=3.0), 429, "3"),
        (ProcessorError("odd"), 500, None),
        (UpstreamUnavailableError("busy", grpc_code=14, retry_after=7), 503, "7"),
        (UpstreamUnavailableError("late", grpc_code=4), 504, None),
        (UpstreamRejectedError("no key", grpc_code=16), 401, None),
        (UpstreamRejectedError("not you", grpc_code=7), 403, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_errors_have_their_status(
    headers: dict[str, str], error: ProcessorError, status: int, retry_after: str | None
) -> None:
    """Whatever goes wrong has its HTTP status, `Retry-After` where somebody named a delay, and a Status as its body."""

    async def refuse(_: Request) -> bytes:
        raise error

    async with http_receiver(refuse) as received:
        response = await received.client.post("/v1/traces", content=b"", headers=headers)
    assert (response.status_code, response.headers.get("retry-after")) == (status, retry_after)
    assert response.headers["content-type"] == headers["content-type"]
    assert answered(response).message == str(error)
    assert received.refused == []


async def test_a_delay_is_in_the_json_body_too() -> None:
    """The details of a Status are readable in JSON."""

    async def refuse(_: Request) -> bytes:
        raise OverloadedError("full", retry_after=1.5)

    async with http_receiver(refuse) as received:
        response = await received.client.post("/v1/logs", content=b"{}", headers=JSON)
    assert response.json()["details"] == [
        {"@type": f"type.googleapis.com/{RetryInfo.DESCRIPTOR.full_name}", "retryDelay": "1.500s"}
    ]


@pytest.mark.parametrize("headers", [PROTOBUF, JSON])
async def test_a_partial_success_comes_back_in_the_request_s_form(headers: dict[str, str]) -> None:
    """What the destination says beside OK reaches the client."""
    partial = ExportTracePartialSuccess(rejected_spans=3, error_message="three were too old")

    async def partly(_: Request) -> bytes:
        return ExportTraceServiceResponse(partial_success=partial).SerializeToString()

    async with http_receiver(partly) as received:
        response = await received.client.post("/v1/traces", content=b"", headers=headers)
    assert response.status_code == 200
    if headers is JSON:
        assert response.json() == {"partialSuccess": {"rejectedSpans": "3", "errorMessage": "three were too old"}}
    else:
        assert ExportTraceServiceResponse.FromString(response.content).partial_success == partial


@pytest.mark.parametrize("headers", [PROTOBUF, JSON])
@pytest.mark.parametrize("way", ["length", "chunked", "gzip"])
async def test_a_body_over_the_limit_is_413(headers: dict[str, str], way: str) -> None:
    """The limit holds for the body as it is sent and as it is decompressed, whether its length is announced or not."""
    content = b" " * 20_000
    options = with_limits(body=BodyLimits(size=10_000, time=600, rate=0))

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 1000

    async with http_receiver(options=options) as received:
        if way == "gzip":
            headers = {**headers, "content-encoding": "gzip"}
            response = await received.client.post("/v1/traces", content=gzip.compress(content), headers=headers)
        else:
            sent = content if way == "length" else pieces()
            response = await received.client.post("/v1/traces", content=sent, headers=headers)
    assert response.status_code == 413
    assert "--max-message-size" in answered(response).message
    assert received.refused == [(Signal.TRACES, "too_large")]


async def test_a_client_that_is_still_sending_gets_the_answer() -> None:
    """A refusal does not cut off a body under way: a reset connection would hide why, and look worth a retry."""
    options = with_limits(body=BodyLimits(size=1_000_000, time=600, rate=0))
    async with http_receiver(options=options) as received:
        for _ in range(3):
            response = await received.client.post("/v1/traces", content=b"x" * 1_900_000, headers=PROTOBUF)
            assert response.status_code == 413


async def test_json_that_grows_in_protobuf_is_bounded() -> None:
    """`[0,0,...]` of doubles is four times as large in protobuf; the limit holds there too."""
    point = (
        b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":[{"explicitBounds":[%s]}]}}]}]}]}'
    )
    text = point % b",".join([b"0"] * 4000)
    async with http_receiver(options=with_limits(body=BodyLimits(size=10_000, time=600, rate=0))) as received:
        response = await received.client.post("/v1/metrics", content=text, headers=JSON)
    assert response.status_code == 413


async def test_bytes_in_flight_are_bounded_over_all_requests() -> None:
    """A body that does not fit beside the others is asked to come back."""
    go = asyncio.Event()

    async def wait(_: Request) -> bytes:
        await go.wait()
        return b""

    async with http_receiver(wait, bytes_in_flight=1000) as received:
        first = asyncio.create_task(received.client.post("/v1/traces", content=b"x" * 900, headers=PROTOBUF))
        while not received.requests:
            await asyncio.sleep(0.01)
        response = await received.client.post("/v1/traces", content=b"x" * 200, headers=PROTOBUF)
        go.set()
        assert (await first).status_code == 200
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")


@pytest.mark.parametrize("headers", [PROTOBUF, JSON])
@pytest.mark.parametrize("signal", Signal)
@pytest.mark.parametrize(
    ("error", "status"), [(UnauthenticatedError("no"), 401), (PermissionDeniedError("no"), 403)], ids=["401", "403"]
)
async def test_a_key_is_checked_before_the_body_is_read(
    signal: Signal, headers: dict[str, str], error: ProcessorError, status: int
) -> None:
    """The headers alone decide; a body that would be refused for itself is not looked at."""

    def refuse(_signal: Signal, _headers: object) -> None:
        raise error

    async with http_receiver(authenticate=refuse) as received:
        response = await received.client.post(f"/v1/{signal.value}", content=b"{", headers=headers)
        reader, writer = await received.connect()
        writer.write(b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\nexpect: 100-continue\r\n\r\n")
        raw = await read_to_end(reader)
        writer.close()
    assert response.status_code == status
    assert status_of(raw) == status
    assert received.requests == []


async def test_the_header_of_a_key_does_not_travel_on() -> None:
    """What was meant for the processor stays there; other headers go with the request as they came."""
    seen: list[object] = []

    def admit(signal: Signal, headers: object) -> str:
        seen.append((signal, headers))
        return "x-api-key"

    async with http_receiver(authenticate=admit) as received:
        headers = [
            *PROTOBUF.items(),
            ("x-api-key", "secret"),
            ("x-tenant", "a"),
            ("X-Tenant", "b"),
            ("x-note-bin", "AP8="),
        ]
        await received.client.post("/v1/logs", content=b"", headers=[(name, value.encode()) for name, value in headers])
    ((signal, asked),) = seen
    assert signal is Signal.LOGS
    assert (asked["x-api-key"], asked["x-tenant"]) == ("secret", "a, b")
    travelling = [pair for pair in received.requests[0].headers if pair[0].startswith("x-")]
    assert travelling == [("x-tenant", "a"), ("x-tenant", "b"), ("x-note-bin", "AP8=")]


async def test_a_client_that_goes_away_cancels_its_request() -> None:
    """Work for nobody ends."""
    cancelled = asyncio.Event()

    async def wait(_: Request) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return b""

    async with http_receiver(wait) as received:
        _, writer = await received.connect()
        writer.write(
            b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n"
        )
        while not received.requests:
            await asyncio.sleep(0.01)
        writer.close()
        await asyncio.wait_for(cancelled.wait(), 30)


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests sent without waiting for answers are all answered."""
    one = b"POST /v1/%s HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n%s\r\n"
    async with http_receiver() as received:
        reader, writer = await received.connect()
        writer.write(one % (b"traces", b"") + one % (b"logs", b"") + one % (b"metrics", b"connection: close\r\n"))
        raw = await read_to_end(reader)
        writer.close()
    assert raw.count(b"HTTP/1.1 200 OK") == 3
    assert [request.signal for request in received.requests] == [Signal.TRACES, Signal.LOGS, Signal.METRICS]


async def test_a_unix_socket_serves_and_is_removed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A sidecar can be reached over a socket file, a stale one is replaced, and none is left behind."""
    path = tmp_path_factory.mktemp("s") / "otlp.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind(str(path))
    async with http_receiver(listen=f"unix:{path}") as received:
        assert (await received.client.post("/v1/traces", content=BODY, headers=PROTOBUF)).status_code == 200
        with pytest.raises(ConfigError, match="another process listens"):
            async with http_receiver(listen=f"unix:{path}"):
                pass
        assert path.exists()
    assert not path.exists()


@pytest.mark.parametrize("path", ["/nowhere/otlp.sock", "/dev/null", "/" + "x" * 200])
async def test_a_socket_path_that_cannot_be_used_is_one_clear_line(path: str) -> None:
    """A missing folder, a file that is no socket and a path that is too long are named."""
    with pytest.raises(ConfigError, match="--http-listen: ") as error:
        async with http_receiver(listen=f"unix:{path}"):
            pass
    assert "\n" not in str(error.value)


async def test_a_busy_port_is_one_clear_line() -> None:
    """The second receiver on a port does not share it in silence."""
    async with http_receiver() as received:
        with pytest.raises(ConfigError, match=r"--http-listen: cannot listen on .* in use"):
            async with http_receiver(listen=str(received.address)):
                pass


@pytest.mark.parametrize("host", ["localhost", "[::]", "0.0.0.0"])
async def test_every_address_of_a_host_is_served_on_one_port(host: str) -> None:
    """A name that stands for several addresses, and every interface, are reached over IPv4 on one port."""
    if host == "[::]" and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    async with http_receiver(listen=f"{host}:0") as received:
        url = f"http://127.0.0.1:{received.address.port}/v1/traces"
        assert (await received.client.post(url, content=BODY, headers=PROTOBUF)).status_code == 200


ORIGIN = "https://app.example.com"


async def test_pages_of_other_origins_may_not_send() -> None:
    """Without listed origins a preflight is refused with the flag's name, and no answer mentions an origin."""
    async with http_receiver() as received:
        asked = {"origin": ORIGIN, "access-control-request-method": "POST"}
        preflight = await received.client.options("/v1/traces", headers=asked)
        response = await received.client.post("/v1/traces", content=BODY, headers={**PROTOBUF, "origin": ORIGIN})
        probe = await received.client.options("/v1/traces")
    assert preflight.status_code == 405
    assert "--cors-origins" in preflight.text
    assert "--cors-origins" not in probe.text
    assert not [name for name in {**preflight.headers, **response.headers} if name.startswith("access-control")]


async def test_pages_of_listed_origins_may_send() -> None:
    """A listed origin passes the preflight with the headers that exporters send, reads answers; no other may."""
    async with http_receiver(options=with_limits(cors_origins=(ORIGIN, "http://localhost:3000"))) as received:

        async def preflight(origin: str, headers: str) -> httpx.Response:
            asked = {
                "origin": origin,
                "access-control-request-method": "POST",
                "access-control-request-headers": headers,
            }
            return await received.client.options("/v1/traces", headers=asked)

        sent = "content-type,content-encoding,authorization,x-api-key,traceparent,tracestate,baggage"
        allowed = await preflight(ORIGIN, sent)
        stranger = await preflight("https://app.example.com.evil.example", sent)
        other_header = await preflight(ORIGIN, "x-other")
        response = await received.client.post("/v1/traces", content=BODY, headers={**PROTOBUF, "origin": ORIGIN})
        refusal = await received.client.post("/v1/traces", content=BODY, headers={"origin": ORIGIN})
        unlisted = await received.client.post("/v1/traces", content=BODY, headers={**PROTOBUF, "origin": "null"})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    assert stranger.status_code == 400
    assert "access-control-allow-origin" not in stranger.headers
    assert other_header.status_code == 400
    for answer in (response, refusal):
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "retry-after" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-origin" not in unlisted.headers
