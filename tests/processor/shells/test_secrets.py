"""Secrets are sent everywhere; nothing that the processor writes or exposes holds one."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from pathlib import Path

import grpc
import httpx
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from support.http_upstream import PROTOBUF, HttpReply, HttpUpstream
from support.processor import LIMIT, program
from support.spans import child, request, root
from support.upstream import Reply, Upstream, export

SECRET = "hunter2"


def secret(name: str) -> str:
    """A secret that says where it was put."""
    return f"{SECRET}-{name}"


TOKEN, BROWSER_KEY, OURS = secret("token"), secret("browser-key"), secret("of-the-upstream")

BODIES: list[bytes] = [
    request(root(neatlogs__end_user__id=secret("user")), child(neatlogs__end_user__id=secret("override"))),
    request(root(neatlogs__end_user__metadata=secret("metadata"), input__value=secret("prompt"))),
    request(root(neatlogs__end_user__id=secret("cut-off")))[:-5],
    secret("no-otlp").encode(),
    gzip.compress(secret("compressed").encode()),
    gzip.compress(secret("cut-off").encode())[:-4],
]
JSON = [
    {"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": secret("trace-id")}]}]}]},
    {"resourceSpans": secret("wrong-type")},
    {secret("key"): secret("value"), "resourceSpans": [{"scopeSpans": [{"spans": [{"kind": secret("kind")}]}]}]},
]

HEADERS: list[dict[str, str]] = [
    {"x-api-key": TOKEN, "x-forwarded": secret("forwarded"), "x-other": secret("other")},
    {"authorization": f"Bearer {TOKEN}", "x-api-key": secret("their-upstream-key")},
    {"authorization": f"Bearer {secret('wrong')}"},
    {"x-api-key": secret("wrong")},
    {"x-api-key": BROWSER_KEY, "origin": f"https://{secret('origin')}.example"},
    {"x-api-key": TOKEN, "x-forwarded": secret("forwarded") + "é"},
]


def replies() -> list[HttpReply]:
    """Upstreams quote what they were sent."""
    status = Status(code=3, message=secret("status-message"))
    text = secret("text").encode()
    return [
        HttpReply(),
        HttpReply(400, status.SerializeToString()),
        HttpReply(401, json.dumps({"message": secret("json")}).encode(), (("content-type", "application/json"),)),
        HttpReply(403, text, (("content-type", "text/plain"),)),
        HttpReply(307, text, (("location", f"http://{secret('location')}.example/"),)),
        HttpReply(500, text, (("content-type", secret("type")), ("x-a", secret("header")))),
        HttpReply(503, text, (("content-type", "text/plain"), ("retry-after", secret("retry-after")))),
        HttpReply(raw=text + b"\r\n\r\n"),
        HttpReply(raw=f"HTTP/1.1 {SECRET}\r\n\r\n".encode()),
    ]


async def send_everything(target: str, http: str) -> None:
    """Each body with each set of headers, over each transport."""
    async with httpx.AsyncClient(trust_env=False, timeout=LIMIT) as client:
        for headers in HEADERS:
            plain = {name: value.encode() for name, value in headers.items()}
            for body in BODIES:
                for encoding in ({}, {"content-encoding": "gzip"}):
                    types = {"content-type": PROTOBUF, **encoding}
                    await client.post(f"http://{http}/v1/traces", content=body, headers={**types, **plain})
                with contextlib.suppress(grpc.aio.AioRpcError):
                    ascii_only = tuple((name, value) for name, value in headers.items() if value.isascii())
                    await export(target, body, metadata=ascii_only, timeout=LIMIT)
            for document in JSON:
                await client.post(f"http://{http}/v1/traces", json=document, headers=plain)
        await client.get(f"http://{http}/{secret('path')}?{secret('query')}")
        await client.post(f"http://{http}/v1/traces?{secret('query')}", headers={"x-api-key": TOKEN})
    host, _, port = http.rpartition(":")
    for raw in (f"GET /{SECRET}\r\n\r\n", f"{SECRET} / HTTP/1.1\r\nhost: {SECRET}\r\nx: {SECRET}\r\n\r\n", SECRET):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(raw.encode())
        writer.write_eof()
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), LIMIT)
        writer.close()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize(("log_format", "queued"), [("text", False), ("json", False), ("text", True)])
async def test_nothing_that_is_written_holds_a_secret(
    tmp_path: Path, protocol: str, log_format: str, queued: bool
) -> None:
    """Payload, keys, headers and an upstream's own words stay out of logs at debug level and out of metrics."""
    files = {
        "tokens": f"application {TOKEN}\n",
        "browser": f"page {BROWSER_KEY} https://shop.example\n",
        "headers": f"x-ours={OURS}\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.touch(0o600)
        path.write_text(text)
    flags = {
        "--upstream-protocol": protocol,
        "--upstream-timeout": "100ms",
        "--upstream-headers-file": str(tmp_path / "headers"),
        "--upstream-headers": f"x-more={OURS}",
        "--forward-headers": "x-forwarded",
        "--auth-tokens-file": str(tmp_path / "tokens"),
        "--browser-keys-file": str(tmp_path / "browser"),
        "--cors-origins": "https://shop.example",
        "--log-level": "debug",
        "--log-format": log_format,
        "--grpc-listen": "127.0.0.1:0",
        "--http-listen": "127.0.0.1:0",
        "--admin-listen": "127.0.0.1:0",
    }
    if queued:
        flags["--queue-dir"] = str(tmp_path / "queue")
        # The queue keeps no header of a request.
        del flags["--forward-headers"]
    partial = ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=1, error_message=secret("partial"))
    ).SerializeToString()
    over_grpc = [
        Reply(response=partial),
        Reply(grpc.StatusCode.INVALID_ARGUMENT, secret("words"), (("x-a", secret("trailer")),)),
    ]
    over_grpc += [Reply(code, secret("words")) for code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE)]
    upstream = HttpUpstream(HttpReply(body=partial), *replies()) if protocol != "grpc" else Upstream(*over_grpc)
    async with upstream:
        flags["--upstream-endpoint"] = upstream.endpoint
        async with program(*(word for pair in flags.items() for word in pair)) as processor:
            target = await processor.ready()
            ready = await processor.line("is ready")
            http, admin = (address(ready, name) for name in ("OTLP/HTTP on ", "admin on "))
            await send_everything(target, http)
            async with httpx.AsyncClient(trust_env=False) as client:
                metrics = (await client.get(f"http://{admin}/metrics")).text
            processor.process.terminate()
            finished = await processor.end()
    written = finished.stdout + finished.stderr
    assert "the upstream answered" in written or "the upstream refused" in written
    assert "unauthenticated" in metrics
    assert [line for line in (written + metrics).splitlines() if SECRET in line.lower()] == []


def address(line: str, after: str) -> str:
    """The address that follows a word in the line of welcome."""
    assert after in line, line
    return line.partition(after)[2].split(",")[0].split()[0].strip('"')
