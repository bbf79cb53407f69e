"""What the console says about a request."""

from __future__ import annotations

import io

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.request import Request, Signal
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.exporters.console import Console, describe
from support.spans import TRACE, attributes, child, request, root

OTHER = b"\xee" * 16


def described(body: bytes, policy: EndUserPolicy | None = None) -> list[str]:
    """Return what is left of the lines after the trace id, with single blanks."""
    enforced = enforce_traces(body, policy or EndUserPolicy())
    lines = describe(Request(Signal.TRACES, enforced.body, enforced=enforced))
    return [" ".join(line.split()[1:]) for line in lines]


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (request(root(neatlogs__end_user__id="u_1")), "shop / root 1 span end user u_1"),
        (
            request(root(neatlogs__end_user__id="u_1", neatlogs__end_user__source="trace"), child()),
            "shop / root 2 spans end user u_1 (trace)",
        ),
        (request(root(), neatlogs__end_user__id="u_0"), "shop / root 1 span end user u_0 (resource)"),
        (request(root()), "shop / root 1 span no end user"),
        (request(root(""), service=""), "(unnamed) 1 span no end user"),
        (request(root(), neatlogs__workflow_name="support"), "support / root 1 span no end user"),
        (request(root("support"), neatlogs__workflow_name="support"), "support 1 span no end user"),
        (request(child()), "shop / (root not in this request) 1 span end user on the root"),
        (
            request(root(), child("tool", neatlogs__end_user__id="u_2", neatlogs__end_user__metadata="{}")),
            'shop / root 2 spans no end user 2 overrides ignored: "tool" (child)',
        ),
        (
            request(root(), *(child(name, neatlogs__end_user__id="u_2") for name in "abcd")),
            'shop / root 5 spans no end user 4 overrides ignored: "a" (child), "b" (child), "c" (child), …',
        ),
        (
            request(root("\x1b[31m\n"), neatlogs__workflow_name="x" * 60),
            f"{'x' * 39}… / \\x1b[31m\\n 1 span no end user",
        ),
    ],
)
def test_a_trace_is_one_line(body: bytes, line: str) -> None:
    """Workflow or service, root, spans, end user with its source, overrides: in this order, escaped and cut."""
    assert described(body) == [line]


def test_each_trace_of_a_request_has_its_line_with_the_trace_id() -> None:
    """Traces come in the order of the request."""
    lines = describe(Request(Signal.TRACES, request(root(), root("other", trace_id=OTHER), child())))
    assert [line.split()[0] for line in lines] == [TRACE.hex(), OTHER.hex()]


def test_an_override_on_a_scope_belongs_to_no_trace() -> None:
    """It gets a line of its own."""
    message = ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=[root()])])])
    scope = message.resource_spans[0].scope_spans[0].scope
    scope.name = "openai"
    scope.attributes.extend(attributes({"neatlogs.end_user.id": "u_2"}))
    assert described(message.SerializeToString())[1] == '1 override ignored: "openai" (scope)'


def test_overrides_past_the_report_are_counted() -> None:
    """Of many overrides the console names a few and counts the rest on a line of its own."""
    body = request(root(), *(child(f"c{number}", neatlogs__end_user__id="u_2") for number in range(70)))
    trace, rest = described(body)
    assert "64 overrides ignored" in trace
    assert rest == "6 overrides ignored"


def test_an_entry_span_that_owns_identity_is_shown_as_the_root() -> None:
    """With entry spans as roots, the line shows the span that has the identity."""
    span = child("GET /", neatlogs__end_user__id="u_1")
    span.flags = 0x300
    policy = EndUserPolicy("entry", frozenset({"shop"}))
    assert described(request(span), policy) == ["shop / GET / 1 span end user u_1"]


async def test_what_cannot_be_decoded_is_said_and_acknowledged() -> None:
    """The console shows; it does not judge."""
    out = io.StringIO()
    assert await Console(out).send(Request(Signal.TRACES, b"\x0a\x02\x12\x05")) == b""
    assert out.getvalue() == "a request of 4 bytes that cannot be decoded for display\n"


async def test_metrics_print_nothing_and_lines_that_cannot_be_written_cost_nothing() -> None:
    """The console is about traces, and a reader that has gone is no reason to refuse a request."""
    out = io.StringIO()
    console = Console(out)
    assert await console.send(Request(Signal.METRICS, b"")) == b""
    assert out.getvalue() == ""
    out.close()
    assert await console.send(Request(Signal.TRACES, request(root()))) == b""
