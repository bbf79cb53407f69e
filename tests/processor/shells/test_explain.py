"""`--explain`: a developer reads in the client's own log that an override was ignored."""

from __future__ import annotations

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from support.processor import running
from support.spans import child, request, root
from support.upstream import Reply, Upstream, export

OVERRIDING = request(root(neatlogs__end_user__id="u_812"), child("tool", neatlogs__end_user__id="u_999"))
WARNING = 'child span "tool" of service "shop" sets neatlogs.end_user.id: ignored; the root span owns'


def rejecting(count: int, message: str) -> bytes:
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = count
    answer.partial_success.error_message = message
    return answer.SerializeToString()


async def post(http: str, body: bytes, content_type: str = "application/x-protobuf") -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(f"http://{http}/v1/traces", content=body, headers={"content-type": content_type})


@pytest.mark.parametrize("response", [b"", rejecting(2, "two were late")], ids=["accepted", "partly rejected"])
async def test_both_protocols_say_what_was_ignored(response: bytes) -> None:
    """The answer over gRPC and over HTTP carries the warning, beside what the upstream itself said."""
    async with (
        Upstream(Reply(response=response)) as upstream,
        running(upstream_endpoint=upstream.endpoint, explain=True) as processor,
    ):
        over_grpc = ExportTraceServiceResponse.FromString(await export(processor.target, OVERRIDING))
        answer = await post(processor.http, OVERRIDING)
    assert answer.status_code == 200
    assert ExportTraceServiceResponse.FromString(answer.content) == over_grpc
    own = ExportTraceServiceResponse.FromString(response).partial_success
    assert over_grpc.partial_success.rejected_spans == own.rejected_spans
    assert over_grpc.partial_success.error_message.startswith(own.error_message)
    assert WARNING in over_grpc.partial_success.error_message


async def test_a_json_client_reads_it_in_json() -> None:
    """A client that speaks JSON gets the warning as JSON."""
    body = b"""{"resourceSpans": [{"scopeSpans": [{"spans": [{
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174",
        "parentSpanId": "eee19b7ec3c1b173", "name": "tool",
        "attributes": [{"key": "neatlogs.end_user.id", "value": {"stringValue": "u_999"}}]}]}]}]}"""
    async with running(console=True, explain=True) as processor:
        answer = await post(processor.http, body, "application/json")
    partial = answer.json()["partialSuccess"]
    assert "sets neatlogs.end_user.id: ignored" in partial["errorMessage"]
    assert int(partial.get("rejectedSpans", 0)) == 0


async def test_without_overrides_or_without_the_flag_the_answer_is_the_upstream_s() -> None:
    """The warning appears only where something was ignored and the flag is set."""
    response = rejecting(1, "one was late")
    async with Upstream(Reply(response=response)) as upstream:
        async with running(upstream_endpoint=upstream.endpoint, explain=True) as processor:
            assert await export(processor.target, request(root(neatlogs__end_user__id="u_812"))) == response
        async with running(upstream_endpoint=upstream.endpoint) as processor:
            assert await export(processor.target, OVERRIDING) == response


async def test_a_queue_that_answers_first_says_it_too(tmp_path: object) -> None:
    """With `--queue-dir` the answer comes from the disk, and carries the warning as well."""
    async with (
        Upstream() as upstream,
        running(upstream_endpoint=upstream.endpoint, queue_dir=str(tmp_path), explain=True) as processor,
    ):
        answer = ExportTraceServiceResponse.FromString(await export(processor.target, OVERRIDING))
    assert WARNING in answer.partial_success.error_message
