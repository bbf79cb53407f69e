"""Other SDKs' keys in, and backends' keys out, through the whole processor: every receiver, the store, the log."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from support.otlp_json import to_otlp_json
from support.processor import Running, running
from support.spans import child, request, root
from support.upstream import Upstream, export

ROOT = root(langfuse__user__id="u_1", session__id="s_1", langfuse__trace__metadata__plan="pro")
LANGFUSE = request(ROOT, child("llm", langfuse__user__id="u_2"), user__id="operator")


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


def attributes(body: bytes) -> dict[str, dict[str, str]]:
    """The attributes of each span, by its name, and those of the resource under the name `resource`."""
    (resource_spans,) = ExportTraceServiceRequest.FromString(body).resource_spans
    found = {span.name: span.attributes for scope in resource_spans.scope_spans for span in scope.spans}
    found["resource"] = resource_spans.resource.attributes
    return {name: {one.key: one.value.string_value for one in values} for name, values in found.items()}


async def post(processor: Running, path: str, content: bytes, kind: str) -> httpx.Response:
    """Send over HTTP."""
    async with httpx.AsyncClient(base_url=f"http://{processor.http}", timeout=30, trust_env=False) as client:
        return await client.post(path, content=content, headers={"content-type": kind})


@pytest.mark.parametrize("way", ["grpc", "protobuf", "json"])
async def test_langfuse_in_and_phoenix_out(upstream: Upstream, way: str) -> None:
    """Whichever way a request comes, its root leaves with what the SDK said under the backend's keys."""
    async with running(upstream_endpoint=upstream.endpoint, accept_from="langfuse", emit_for="phoenix") as processor:
        if way == "grpc":
            await export(processor.target, LANGFUSE)
        elif way == "protobuf":
            assert (await post(processor, "/v1/traces", LANGFUSE, "application/x-protobuf")).status_code == 200
        else:
            document = json.dumps(to_otlp_json(ExportTraceServiceRequest.FromString(LANGFUSE))).encode()
            assert (await post(processor, "/v1/traces", document, "application/json")).status_code == 200
        counters = processor.service.telemetry.counters
        assert (counters.roots_accepted.get(), counters.roots.get("yes")) == (1, 1)
    (body,) = upstream.bodies
    assert attributes(body) == {
        "root": {
            "langfuse.user.id": "u_1",
            "session.id": "s_1",
            "langfuse.trace.metadata.plan": "pro",
            "neatlogs.end_user.id": "u_1",
            "neatlogs.end_user.source": "langfuse.user.id",
            "neatlogs.end_user.metadata": '{"plan":"pro"}',
            "neatlogs.session.id": "s_1",
            "user.id": "u_1",
            "metadata": '{"plan":"pro"}',
        },
        "llm": {"langfuse.user.id": "u_2"},
        "resource": {"service.name": "shop", "user.id": "operator"},
    }


async def test_a_plain_trace_is_emitted_as_any_other(upstream: Upstream) -> None:
    """A plain trace leaves with the backend's keys."""
    trace = {"name": "support", "endUserId": "u_1", "endUserMetadata": {"plan": "pro"}}
    async with running(upstream_endpoint=upstream.endpoint, emit_for="phoenix") as processor:
        answer = await post(processor, "/v1/trace", json.dumps(trace).encode(), "application/json")
        assert answer.status_code == 200
    (body,) = upstream.bodies
    found = attributes(body)["support"]
    assert (found["user.id"], found["metadata"]) == ("u_1", '{"plan": "pro"}')


async def test_nothing_is_accepted_or_emitted_unless_it_is_named(upstream: Upstream) -> None:
    """Without the settings a request of another SDK arrives as the same bytes."""
    async with running(upstream_endpoint=upstream.endpoint) as processor:
        await export(processor.target, LANGFUSE)
    assert upstream.bodies == [LANGFUSE]


async def test_what_is_taken_from_children_is_counted_logged_and_explained(
    upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """A stripped key counts as an ignored override; the log and the answer name span and key, never the value."""
    settings = {"accept": "langfuse.user.id", "accept_strip": True, "explain": True}
    async with running(upstream_endpoint=upstream.endpoint, **settings) as processor:
        with caplog.at_level(logging.WARNING):
            answer = ExportTraceServiceResponse.FromString(await export(processor.target, LANGFUSE))
        assert processor.service.telemetry.counters.overrides_ignored.get("child") == 1
    assert "langfuse.user.id" not in attributes(upstream.bodies[0])["llm"]
    for said in (caplog.text, answer.partial_success.error_message):
        assert 'child span "llm" of service "shop" sets langfuse.user.id: ignored' in said
        assert "u_2" not in said


async def test_the_page_shows_an_accepted_user_like_any_other(tmp_path: Path) -> None:
    """The store takes what was accepted: filters find the trace, and its page names the key that it came from."""
    now = Span(start_time_unix_nano=time.time_ns(), end_time_unix_nano=time.time_ns())
    now.MergeFrom(ROOT)
    async with running(store=str(tmp_path / "traces.db"), accept_from="langfuse") as processor:
        await export(processor.target, request(now))
        async with httpx.AsyncClient(base_url=f"http://{processor.admin}", timeout=30, trust_env=False) as client:
            asked = "&".join(
                f"filter={quote(one)}" for one in ("end_user is u_1", "metadata:plan is pro", "session is s_1")
            )
            (trace,) = (await client.get(f"/api/traces?{asked}")).json()["rows"]
            page = (await client.get(f"/traces/{trace['trace_id']}")).text
    assert trace["end_user"] == "u_1"
    assert "<code>langfuse.user.id</code>" in page


async def test_a_large_request_is_treated_whole(upstream: Upstream) -> None:
    """What is worked on beside the event loop goes through the same stages."""
    body = request(root(user__id="u_1", input__value="x" * 3_000_000), child(user__id="u_2"))
    async with running(upstream_endpoint=upstream.endpoint, accept="user.id", emit="enduser.id,user.id") as processor:
        await export(processor.target, body)
    found = attributes(upstream.bodies[0])
    assert (found["root"]["enduser.id"], found["child"]) == ("u_1", {})
