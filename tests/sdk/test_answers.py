"""What the backend says about spans that it accepted reaches the developer's log."""

from __future__ import annotations

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

import neatlogs_otel as neatlogs
from neatlogs_otel._answers import hear_grpc, hear_http
from support.processor_process import processor_process


def answered(status: int, content: bytes, content_type: str = "application/x-protobuf") -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response.headers["content-type"] = content_type
    response._content = content
    return response


def saying(message: str, rejected: int = 0) -> bytes:
    answer = ExportTraceServiceResponse()
    answer.partial_success.error_message = message
    answer.partial_success.rejected_spans = rejected
    return answer.SerializeToString()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_ignored_override_is_heard_by_the_application(app, said, protocol: str) -> None:
    """With `--explain` the processor says which span set an end user in vain, and init()'s exporter logs it, once."""
    with processor_process("--console", "--explain") as processor:
        endpoint = processor.endpoint if protocol == "grpc" else f"{processor.http_endpoint}/v1/traces"
        neatlogs.init(endpoint=endpoint)
        for _ in range(2):
            with neatlogs.trace("chat", end_user_id="u_812"), app.tracer.start_as_current_span("tool") as span:
                span.set_attribute("neatlogs.end_user.id", "u_999")
            assert neatlogs.flush()
        neatlogs.shutdown()
    assert said.once("accepted the spans with a warning", 'child span "tool" of service "shop"', "root span")
    assert "u_999" not in said.messages[0]


def test_rejected_spans_are_told_with_the_backend_s_words(said) -> None:
    """A backend that took only a part says how many it rejected and why; its words stay in one line."""
    hear_http(answered(200, saying("too\nlong\x1b[2J" + "x" * 5000, rejected=3)))
    assert said.once("rejected 3 spans: too\\nlong\\x1b[2Jxxx")
    assert len(said.messages[0]) < 1100


@pytest.mark.parametrize(
    "response",
    [
        answered(200, b""),
        answered(200, b"\x0a\x7f"),
        answered(200, saying("hello"), "text/html"),
        answered(200, saying("x" * 100_000)),
        answered(503, saying("hello")),
    ],
    ids=["nothing said", "not a response", "not protobuf", "without end", "a failure"],
)
def test_everything_else_is_left_to_the_exporter(said, response: requests.Response) -> None:
    """Failures, other formats and answers without a message are not commented on, and never raise."""
    hear_http(response)
    assert said.messages == []


def test_an_exporter_that_is_built_differently_is_left_alone() -> None:
    """Without the stub that is known, nothing is touched."""

    class Other:
        _client = object()

    other = Other()
    hear_grpc(other)
    assert vars(other) == {}
