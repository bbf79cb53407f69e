"""From an OTLP/HTTP client through the whole processor to an upstream."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from neatlogs_processor.errors import ConfigError
from support.http_receiver import read_to_end, status_of
from support.otlp_json import to_otlp_json
from support.processor import LIMIT, Running, program, running
from support.spans import END_USER, child, names_and_end_users, request, root
from support.upstream import Reply, Upstream

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}
BODY = request(root("root", neatlogs__end_user__id="u_1"), child("child", neatlogs__end_user__id="u_2"))


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


async def post(processor: Running, path: str, content: bytes, headers: dict[str, str]) -> httpx.Response:
    """Send one request to a processor."""
    async with httpx.AsyncClient(base_url=f"http://{processor.http}", timeout=30, trust_env=False) as client:
        return await client.post(path, content=content, headers=headers)


async def test_a_request_that_needs_no_change_arrives_as_the_same_bytes(upstream: Upstream) -> None:
    """What the rule does not touch is not touched at all, compressed or not."""
    body = request(root("root", neatlogs__end_user__id="u_1"), child("child"))
    async with running(upstream_endpoint=upstream.endpoint) as processor:
        assert (await post(processor, "/v1/traces", body, PROTOBUF)).status_code == 200
        zipped = {**PROTOBUF, "content-encoding": "gzip"}
        assert (await post(processor, "/v1/traces", gzip.compress(body), zipped)).status_code == 200
    assert upstream.bodies == [body, body]


@pytest.mark.parametrize("form", ["protobuf", "json"])
async def test_an_override_does_not_reach_the_upstream(upstream: Upstream, form: str) -> None:
    """A child's claim is removed on the way, whichever form it came in."""
    text = json.dumps(to_otlp_json(ExportTraceServiceRequest.FromString(BODY))).encode()
    # A key that is hidden from a search by an escape is the same key.
    text = text.replace(b"neatlogs.end_user.id", b"neatlogs\\u002eend_user.id")
    async with running(upstream_endpoint=upstream.endpoint) as processor:
        content, headers = (BODY, PROTOBUF) if form == "protobuf" else (text, JSON)
        assert (await post(processor, "/v1/traces", content, headers)).status_code == 200
        assert processor.service.telemetry.counters.overrides_ignored.get("child") == 1
    assert names_and_end_users(upstream.bodies[0]) == {"root": "u_1", "child": None}


async def test_json_of_metrics_and_logs_reaches_a_protobuf_upstream(upstream: Upstream) -> None:
    """All three signals are transcoded."""
    metrics = (
        b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[{"asInt":"7"}]}}]}]}]}'
    )
    logs = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"traceId":"0A","body":{"stringValue":"hi"}}]}]}]}'
    async with running(upstream_endpoint=upstream.endpoint) as processor:
        assert (await post(processor, "/v1/metrics", metrics, JSON)).status_code == 200
        assert (await post(processor, "/v1/logs", logs, JSON)).status_code == 200
    metric, log = upstream.received
    assert (metric.signal, log.signal) == ("metrics", "logs")
    (point,) = ExportMetricsServiceRequest.FromString(metric.body).resource_metrics[0].scope_metrics[0].metrics
    assert point.gauge.data_points[0].as_int == 7
    (record,) = ExportLogsServiceRequest.FromString(log.body).resource_logs[0].scope_logs[0].log_records
    assert (record.trace_id, record.body.string_value) == (b"\x0a", "hi")


async def test_a_malformed_request_is_refused_and_counted(upstream: Upstream) -> None:
    """What no reader can take is 400 whether the receiver or the rule finds out, and nothing of it goes on."""
    async with running(upstream_endpoint=upstream.endpoint) as processor:
        assert (await post(processor, "/v1/traces", BODY[:-3], PROTOBUF)).status_code == 400
        assert (await post(processor, "/v1/traces", b"{", JSON)).status_code == 400
        assert processor.service.telemetry.counters.requests.get("traces", "malformed") == 2
    assert upstream.received == []


async def test_a_signal_without_a_destination_is_404() -> None:
    """With a console alone, metrics and logs have nowhere to go, and the answer names the flag."""
    async with running(console=True) as processor:
        response = await post(processor, "/v1/logs", b"{}", JSON)
    assert response.status_code == 404
    assert "--upstream-endpoint" in response.json()["message"]


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
async def test_the_sdk_s_exporter_delivers_through_the_processor(upstream: Upstream, compression: Compression) -> None:
    """OpenTelemetry's own OTLP/HTTP exporter is a client like any other, plain and compressed."""
    async with running(upstream_endpoint=upstream.endpoint) as processor:

        def application() -> None:
            provider = TracerProvider(shutdown_on_exit=False)
            exporter = OTLPSpanExporter(f"http://{processor.http}/v1/traces", compression=compression)
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            tracer = provider.get_tracer("tests")
            with (
                tracer.start_as_current_span("root", attributes={END_USER: "u_1"}),
                tracer.start_as_current_span("child", attributes={END_USER: "u_2"}),
            ):
                pass
            provider.shutdown()

        await asyncio.to_thread(application)
    assert [names_and_end_users(body) for body in upstream.bodies] == [{"child": None}, {"root": "u_1"}]


async def test_named_headers_travel_on(upstream: Upstream) -> None:
    """A client's headers reach the upstream where they are named, as they do over gRPC."""
    async with running(upstream_endpoint=upstream.endpoint, forward_headers="X-Tenant") as processor:
        await post(processor, "/v1/traces", BODY, {**PROTOBUF, "X-Tenant": "acme", "x-other": "1"})
    headers = upstream.received[0].headers
    assert headers["x-tenant"] == "acme"
    assert "x-other" not in headers


async def test_a_client_that_goes_away_ends_its_request(upstream: Upstream) -> None:
    """A request that nobody waits for any more is counted as such."""
    never = asyncio.Event()
    async with (
        Upstream(Reply(after=never)) as slow,
        running(upstream_endpoint=slow.endpoint, upstream_timeout="60s") as processor,
    ):
        sending = asyncio.create_task(post(processor, "/v1/traces", BODY, PROTOBUF))
        await slow.wait_for(1)
        sending.cancel()
        counters = processor.service.telemetry.counters
        while not counters.requests.get("traces", "client_gone"):
            await asyncio.sleep(0.01)
        never.set()


async def test_none_switches_the_listener_off() -> None:
    """A processor may receive over gRPC alone."""
    async with running(console=True, http_listen="none") as processor:
        assert processor.http == ""


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_an_upstream_that_is_the_http_listener_is_refused(name: str, unused_tcp_port: int) -> None:
    """The processor does not send to itself over HTTP either."""
    listen = f"127.0.0.1:{unused_tcp_port}"
    with pytest.raises(ConfigError, match="own --http-listen"):
        async with running(
            http_listen=listen, upstream_endpoint=f"http://{name}:{unused_tcp_port}", upstream_protocol="http/protobuf"
        ):
            pass


async def test_both_listeners_may_be_socket_files(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A sidecar needs no port at all."""
    folder = tmp_path_factory.mktemp("s")
    listeners = {"grpc_listen": f"unix:{folder}/grpc.sock", "http_listen": f"unix:{folder}/http.sock"}
    async with running(upstream_endpoint=upstream.endpoint, **listeners):
        transport = httpx.AsyncHTTPTransport(uds=f"{folder}/http.sock")
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30) as client:
            assert (await client.post("/v1/traces", content=BODY, headers=PROTOBUF)).status_code == 200
    assert len(upstream.received) == 1
    assert list(folder.iterdir()) == []


POST = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"


@pytest.mark.parametrize(
    ("flags", "sent", "status"),
    [
        ({"http_header_timeout": "100ms"}, b"POST", 408),
        ({"max_header_size": "1KiB"}, POST + b"x: " + b"x" * 2000, 431),
        ({"body_timeout": "100ms"}, POST + b"content-length: 5\r\n\r\nx", 503),
        ({"http_min_body_rate": 1_000_000_000, "body_timeout": "5500ms"}, POST + b"content-length: 5\r\n\r\nx", 503),
        ({"max_message_size": 10}, POST + b"content-length: 11\r\nconnection: close\r\n\r\n" + b"x" * 11, 413),
        ({"http_idle_timeout": "100ms"}, POST + b"content-length: 0\r\n\r\n", 200),
        (
            {"max_json_depth": 8},
            b"POST /v1/traces HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: "
            b"application/json\r\ncontent-length: 24\r\n\r\n" + b'{"x":[[[[[[[[]]]]]]]]}  ',
            400,
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_every_limit_has_its_flag(flags: dict[str, Any], sent: bytes, status: int) -> None:
    """Each limit of the HTTP listener is set by the setting that is named for it."""
    async with running(console=True, **flags) as processor:
        host, _, port = processor.http.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        assert status_of(await read_to_end(reader)) == status
        writer.close()
        await writer.wait_closed()


async def test_requests_past_the_limit_are_asked_to_come_back() -> None:
    """One more than --max-concurrent-requests is answered 503 with a delay, counted, and served once there is room."""
    accept = asyncio.Event()
    async with (
        Upstream(Reply(after=accept), Reply()) as upstream,
        running(upstream_endpoint=upstream.endpoint, max_concurrent_requests=1) as processor,
        httpx.AsyncClient(base_url=f"http://{processor.http}", trust_env=False, timeout=LIMIT) as client,
    ):
        headers = {"content-type": "application/x-protobuf"}
        first = asyncio.create_task(client.post("/v1/traces", content=request(root()), headers=headers))
        await upstream.wait_for(1)
        refused = await client.post("/v1/traces", content=request(root()), headers=headers)
        accept.set()
        assert (await first).status_code == 200
        assert (await client.post("/v1/traces", content=request(root()), headers=headers)).status_code == 200
        assert processor.service.telemetry.counters.requests.get("traces", "overloaded") == 1
    assert (refused.status_code, refused.headers["retry-after"] in {"1", "2"}) == (503, True)


async def test_the_number_of_connections_has_its_flag() -> None:
    """One connection more than allowed is answered 503."""
    async with running(console=True, http_max_connections=1) as processor:
        host, _, port = processor.http.rpartition(":")
        connections = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
        assert status_of(await read_to_end(connections[1][0])) == 503
        for _, writer in connections:
            writer.close()
            await writer.wait_closed()
        assert processor.service.telemetry.counters.http_refused.get("connections") == 1


async def test_a_page_of_a_listed_origin_may_send() -> None:
    """`--cors-origins` opens the listener to those origins."""
    async with running(console=True, cors_origins="https://app.example.com") as processor:
        response = await post(processor, "/v1/traces", BODY, {**PROTOBUF, "origin": "https://app.example.com"})
    assert response.headers["access-control-allow-origin"] == "https://app.example.com"


async def test_what_a_client_sends_is_not_logged() -> None:
    """Neither an access log nor an error shows paths, headers, values or ids, at the lowest level either."""
    async with program("--console", "--grpc-listen", "127.0.0.1:0", "--log-level", "debug") as started:
        line = await started.line("OTLP/HTTP on")
        address = line.partition("OTLP/HTTP on ")[2].partition(",")[0]
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=30, trust_env=False) as client:
            for content in (b"{", b'{"resourceSpans":"s3cret"}', b'{"resourceSpans":[{"x":"s3cret"}]}'):
                await client.post("/v1/traces?key=s3cret", content=content, headers={**JSON, "x-api-key": "s3cret"})
            await client.get("/s3cret")
        started.kill(signal.SIGTERM)
        finished = await started.end()
    assert finished.code == 0
    assert "s3cret" not in finished.stderr + finished.stdout


def resident(pid: int) -> int:
    """The resident memory of a process, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
async def test_memory_stays_flat_under_bombs() -> None:
    """gzip bombs and JSON made to become large are refused by dozens without the process growing by their size."""
    gigabyte = gzip.compress(bytes(2**26), 9) * 16
    wide = b'{"resourceSpans":[' + b"{}," * 600_000 + b"{}]}"
    bodies = [
        (gigabyte, {**PROTOBUF, "content-encoding": "gzip"}, 413),
        (wide, JSON, 200),
        (b'{"x":' + b"[" * 2_000_000, JSON, 400),
        (b'{"x":[' + b"{}," * 600_000 + b"{}]}", JSON, 200),
    ]
    flags = ("--max-message-size", "8MiB", "--max-bytes-in-flight", "32MiB")
    async with program("--console", "--grpc-listen", "127.0.0.1:0", *flags) as started:
        line = await started.line("OTLP/HTTP on")
        address = line.partition("OTLP/HTTP on ")[2].partition(",")[0]
        before = resident(started.process.pid)
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=60, trust_env=False) as client:
            for content, headers, status in bodies:
                for _ in range(2):
                    response = await client.post("/v1/traces", content=content, headers=headers)
                    assert response.status_code == status
        after = resident(started.process.pid)
        started.kill(signal.SIGTERM)
        assert (await started.end()).code == 0
    # A gigabyte of zeros, and JSON whose tree of Python objects takes forty megabytes each time.
    assert after - before < 64 * 2**20
