"""init(mask=...): what it sees, what always stays, and what is left when it fails."""

from __future__ import annotations

import pytest
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags

import neatlogs_otel as neatlogs
from neatlogs_otel import conventions as keys
from support.otlp_sink import attributes

IDENTITY = {
    keys.END_USER_ID: "alice",
    keys.END_USER_METADATA: '{"plan":"pro"}',
    keys.END_USER_SOURCE: "trace",
    keys.SESSION_ID: "s-1",
    keys.TAGS: "a",
    keys.SPAN_KIND: "workflow",
    keys.OPENINFERENCE_SPAN_KIND: "WORKFLOW",
}


def send(sink, mask, **content):
    """Export one trace() with content under the mask; the span as it arrived."""
    neatlogs.init(endpoint=sink.grpc_endpoint, mask=mask)
    with neatlogs.trace(
        "chat", end_user_id="alice", end_user_metadata={"plan": "pro"}, session_id="s-1", tags=["a"], **content
    ) as span:
        linked = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1))
        span.add_link(linked, {"link.note": "secret"})
        span.add_event("note", {"event.note": "secret"})
        span.set_status(Status(StatusCode.ERROR, "secret"))
    assert neatlogs.flush()
    return sink.spans[0]


def test_it_replaces_content_and_identity_stays(app, sink) -> None:
    """Attributes of the span, its events and links and the status description pass the mask; identity does not."""
    seen = []

    def mask(content):
        seen.append(dict(content))
        return dict.fromkeys(content, "***")

    span = send(sink, mask, prompt="secret")
    assert attributes(span) == {**IDENTITY, "prompt": "***"}
    assert attributes(span.events[0]) == {"event.note": "***"}
    assert [item.value.string_value for item in span.links[0].attributes] == ["***"]
    assert (span.status.code, span.status.message) == (2, "***")
    assert {"prompt": "secret"} in seen
    assert {"otel.status_description": "secret"} in seen
    assert not any(keys.is_identity_key(key) for content in seen for key in content)


def test_it_may_add_and_leave_out(app, sink) -> None:
    """What the mask returns is what is sent: attributes may be new and may be missing."""
    span = send(sink, lambda content: {"length": len(content.get("prompt", ""))}, prompt="secret")
    assert attributes(span) == {**IDENTITY, "length": 6}


def test_it_cannot_name_an_end_user(app, sink) -> None:
    """Identity that a mask returns has no effect."""
    span = send(sink, lambda _: {keys.END_USER_ID: "mallory", keys.SESSION_ID: "other"}, prompt="secret")
    assert attributes(span) == IDENTITY


@pytest.mark.parametrize("broken", [lambda _: 1 / 0, lambda _: None, lambda _: "text"], ids=["raises", "none", "text"])
def test_if_it_fails_content_is_dropped_and_identity_stays(app, sink, broken) -> None:
    """A mask that raises or returns no attributes leaves identity alone; the span itself is sent."""
    span = send(sink, broken, prompt="secret")
    assert attributes(span) == IDENTITY
    assert attributes(span.events[0]) == {}
    assert (span.status.code, span.status.message) == (2, "")
    assert b"secret" not in sink.requests[0].body.SerializeToString()


def test_a_failing_mask_is_said_once_without_values(app, sink, said) -> None:
    """A mask that raises costs one warning, which names the span and holds no content."""
    send(sink, lambda content: content["missing"], prompt="secret")
    assert said.once("The mask of init() on span 'chat' raised KeyError", "the end user stays")


def test_it_may_change_what_it_is_given(app, sink) -> None:
    """A mask that edits its argument in place edits a copy: the application's exporters see the original."""

    def mask(content):
        content.clear()
        return content

    send(sink, mask, prompt="secret")
    assert app.named("chat").attributes["prompt"] == "secret"
    assert app.named("chat").events[0].attributes["event.note"] == "secret"


def test_what_limits_have_dropped_is_still_counted(app, sink) -> None:
    """The counts of attributes that the SDK has dropped arrive as without a mask."""
    neatlogs.init(endpoint=sink.grpc_endpoint, mask=lambda content: content)
    with neatlogs.trace("chat") as span:
        span.set_attributes({f"key.{number}": number for number in range(200)})
        span.add_event("note", {f"key.{number}": number for number in range(200)})
    neatlogs.flush()
    assert sink.spans[0].dropped_attributes_count == app.named("chat").dropped_attributes > 0
    assert sink.spans[0].events[0].dropped_attributes_count == app.named("chat").events[0].dropped_attributes > 0


def test_without_a_mask_spans_arrive_as_they_are(app, sink) -> None:
    """Without a mask nothing but the resource differs from the application's own span."""
    span = send(sink, None, prompt="secret")
    assert attributes(span) == {**IDENTITY, "prompt": "secret"}
    assert span.status.message == "secret"


def test_a_link_without_attributes(app, sink) -> None:
    """Spans with bare links pass a mask."""
    neatlogs.init(endpoint=sink.grpc_endpoint, mask=lambda content: content)
    app.tracer.start_span("linked", links=[Link(SpanContext(1, 2, is_remote=False))]).end()
    neatlogs.flush()
    assert len(sink.spans[0].links) == 1
