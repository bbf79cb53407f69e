"""From a client that sends plain traces through the whole processor to an upstream and into the store."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from support.processor import Running, running
from support.spans import names_and_end_users
from support.upstream import Reply, Upstream

TRACE = {
    "name": "support",
    "project": "shop",
    "endUserId": "u_1",
    "children": [{"name": "retrieve", "query": "q", "endUserId": "u_2"}, {"name": "answer", "model": "gpt-4o"}],
}
ORIGIN, KEY, TOKEN = "https://app.example.com", "nlw_0123456789", "token-0123456789"
JSON = {"content-type": "application/json"}


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


async def send(
    processor: Running, content: Any = TRACE, headers: dict[str, str] | None = None, method: str = "POST"
) -> httpx.Response:
    """Send one plain trace to a processor."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    async with httpx.AsyncClient(base_url=f"http://{processor.http}", timeout=30, trust_env=False) as client:
        return await client.request(method, "/v1/trace", content=body, headers={**JSON, **(headers or {})})


async def test_a_plain_trace_reaches_the_upstream_as_otlp(upstream: Upstream) -> None:
    """The answer names the trace and its spans; what arrives is OTLP under the root's end user, overrides counted."""
    async with running(upstream_endpoint=upstream.endpoint) as processor:
        answer = await send(processor)
        counters = processor.service.telemetry.counters
        assert counters.overrides_ignored.get("child") == 1
        assert counters.spans_received.get() == 3
    (body,) = upstream.bodies
    span = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans[0]
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"ok": True, "trace_id": span.trace_id.hex(), "spans": 3}
    assert names_and_end_users(body) == {"support": "u_1", "retrieve": None, "answer": None}


async def test_a_trace_sent_again_counts_once(tmp_path: Path) -> None:
    """The same body is the same trace: in the store it is there once, and with what was sent first."""
    async with running(store=str(tmp_path / "traces.db")) as processor:
        first, second = await send(processor), await send(processor)
        other = await send(processor, {**TRACE, "name": "other"})
        async with httpx.AsyncClient(base_url=f"http://{processor.admin}", timeout=30, trust_env=False) as client:
            listed = (await client.get("/api/traces?filter=end_user+is+u_1")).json()
    assert first.json() == second.json()
    traces = {one["trace_id"]: one for one in listed["rows"]}
    assert traces.keys() == {first.json()["trace_id"], other.json()["trace_id"]}
    assert {(one["spans"], one["overrides"], one["workflow"]) for one in traces.values()} == {
        (3, 1, "support"),
        (3, 1, "other"),
    }


async def test_a_compressed_trace_is_read(upstream: Upstream) -> None:
    """gzip is undone here as everywhere."""
    async with running(upstream_endpoint=upstream.endpoint) as processor:
        body = gzip.compress(json.dumps(TRACE).encode())
        assert (await send(processor, body, {"content-encoding": "gzip"})).json()["spans"] == 3
    assert len(upstream.bodies) == 1


async def test_a_long_trace_is_read_beside_the_event_loop(upstream: Upstream) -> None:
    """A large body arrives in full."""
    long = {**TRACE, "input": "x" * 200_000}
    async with running(upstream_endpoint=upstream.endpoint) as processor:
        assert (await send(processor, long)).json()["ok"]
    assert len(upstream.bodies[0]) > 200_000


@pytest.mark.parametrize(
    ("content", "headers", "status", "reason", "said"),
    [
        (b"{", {}, 400, "malformed", "not JSON"),
        (b"", {}, 400, "malformed", "not JSON"),
        ({"children": []}, {}, 400, "malformed", "name: the span's name is expected"),
        ({"name": "a", "tokens": {"prompt": "x"}}, {}, 400, "malformed", "tokens.prompt: a number is expected"),
        (TRACE, {"content-type": "text/plain"}, 415, "not_otlp_http", "application/json"),
        (TRACE, {"content-type": "application/x-protobuf"}, 415, "not_otlp_http", "application/json"),
        (TRACE, {"content-encoding": "br"}, 415, "not_otlp_http", "encoding"),
        ({"name": "a", "input": "x" * 2000}, {}, 413, "too_large", "--max-message-size"),
        ({"name": "a", "documents": [0] * 60}, {}, 413, "too_large", "--max-message-size"),
    ],
    ids=str,
)
async def test_a_refusal_says_why_and_is_counted(
    upstream: Upstream, content: Any, headers: dict[str, str], status: int, reason: str, said: str
) -> None:
    """What cannot be taken is answered with its status and a sentence that the client shows; nothing of it goes on."""
    async with running(upstream_endpoint=upstream.endpoint, max_message_size="1KiB") as processor:
        answer = await send(processor, content, headers)
        refusals = processor.service.telemetry.counters.requests.get("traces", reason)
    assert answer.status_code == status
    assert answer.json()["ok"] is False
    assert said in answer.json()["error"]
    assert refusals == 1
    assert upstream.bodies == []


async def test_only_post_is_taken(upstream: Upstream) -> None:
    """Another method is answered 405 and told which one is right."""
    async with running(upstream_endpoint=upstream.endpoint) as processor:
        answer = await send(processor, method="PUT")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["ok"] is False


async def test_a_refusal_of_the_upstream_reaches_the_client() -> None:
    """What the upstream refuses, and what it cannot take now, are told apart as for OTLP."""
    no = Reply(code=grpc.StatusCode.INVALID_ARGUMENT, message="not so")
    async with Upstream(no) as upstream, running(upstream_endpoint=upstream.endpoint) as processor:
        refused = await send(processor)
    assert (refused.status_code, refused.json()) == (400, {"ok": False, "error": "not so"})
    not_now = Reply(code=grpc.StatusCode.UNAVAILABLE)
    async with (
        Upstream(not_now) as upstream,
        running(upstream_endpoint=upstream.endpoint, upstream_timeout="1s") as processor,
    ):
        later = await send(processor)
    assert later.status_code == 503
    assert later.json()["ok"] is False


async def test_spans_that_the_upstream_rejected_do_not_count() -> None:
    """A partial success is said in the answer."""
    partial = ExportTracePartialSuccess(rejected_spans=1, error_message="too old")
    reply = Reply(response=ExportTraceServiceResponse(partial_success=partial).SerializeToString())
    async with Upstream(reply) as upstream, running(upstream_endpoint=upstream.endpoint) as processor:
        answer = (await send(processor)).json()
    assert (answer["ok"], answer["spans"], answer["error"]) == (False, 2, "too old")


async def test_explain_warns_of_ignored_overrides(upstream: Upstream) -> None:
    """With --explain the answer to an accepted trace says what was ignored."""
    async with running(upstream_endpoint=upstream.endpoint, explain=True) as processor:
        answer = (await send(processor)).json()
    assert answer["ok"]
    assert "retrieve" in answer["warning"]
    assert "u_2" not in answer["warning"]


async def test_keys_are_asked_for(upstream: Upstream, tmp_path: Path) -> None:
    """A token, or a browser key from its origin, may send; nothing, an unknown key and another origin may not."""
    tokens, browsers = tmp_path / "tokens", tmp_path / "browsers"
    tokens.write_text(f"server {TOKEN}\n", encoding="utf-8")
    browsers.write_text(f"page {KEY} {ORIGIN}\n", encoding="utf-8")
    for file in (tokens, browsers):
        file.chmod(0o600)
    expected: list[tuple[dict[str, str], int]] = [
        ({"authorization": f"Bearer {TOKEN}"}, 200),
        ({"x-api-key": TOKEN}, 200),
        ({"authorization": f"Bearer {KEY}", "origin": ORIGIN}, 200),
        ({"authorization": f"Bearer {KEY}", "origin": "https://elsewhere.example.com"}, 403),
        ({"authorization": f"Bearer {KEY}"}, 403),
        ({"authorization": "Bearer not-a-key"}, 401),
        ({}, 401),
    ]
    flags = {"auth_tokens_file": str(tokens), "browser_keys_file": str(browsers)}
    async with running(upstream_endpoint=upstream.endpoint, forward_headers=["authorization"], **flags) as processor:
        answers = [await send(processor, headers=headers) for headers, _ in expected]
    assert [answer.status_code for answer in answers] == [status for _, status in expected]
    assert all(answer.json()["ok"] == (answer.status_code == 200) for answer in answers)
    # The key was meant for the processor.
    assert len(upstream.received) == 3
    assert not any("authorization" in request.headers for request in upstream.received)


async def test_a_browser_key_has_its_rate(upstream: Upstream, tmp_path: Path) -> None:
    """Plain traces take from the same rate as OTLP, and are told when to come back."""
    browsers = tmp_path / "browsers"
    browsers.write_text(f"page {KEY} {ORIGIN}\n", encoding="utf-8")
    browsers.chmod(0o600)
    headers = {"authorization": f"Bearer {KEY}", "origin": ORIGIN}
    flags = {"browser_keys_file": str(browsers), "browser_key_rate": 0.001}
    async with running(upstream_endpoint=upstream.endpoint, **flags) as processor:
        assert (await send(processor, headers=headers)).status_code == 200
        answer = await send(processor, headers=headers)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert "--browser-key-rate" in answer.json()["error"]


async def test_pages_of_listed_origins_may_send(upstream: Upstream) -> None:
    """The browser's question is answered for a listed origin alone, and so is the trace itself."""
    ask = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    async with running(upstream_endpoint=upstream.endpoint, cors_origins=[ORIGIN]) as processor:
        allowed = await send(processor, b"", {"origin": ORIGIN, **ask}, method="OPTIONS")
        refused = await send(processor, b"", {"origin": "https://elsewhere.example.com", **ask}, method="OPTIONS")
        sent = await send(processor, headers={"origin": ORIGIN})
        wrong = await send(processor, b"{", headers={"origin": ORIGIN})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-origin" not in refused.headers
    assert [one.headers["access-control-allow-origin"] for one in (sent, wrong)] == [ORIGIN, ORIGIN]


async def test_a_queue_takes_plain_traces(upstream: Upstream, tmp_path: Path) -> None:
    """With a queue the answer comes once the trace is on disk, and the trace arrives without its overrides."""
    async with running(upstream_endpoint=upstream.endpoint, queue_dir=str(tmp_path / "queue")) as processor:
        assert (await send(processor)).json()["spans"] == 3
        await upstream.wait_for(1)
    assert names_and_end_users(upstream.bodies[0])["retrieve"] is None
