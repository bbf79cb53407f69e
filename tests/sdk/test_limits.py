"""The provider's own limits: identity is neither cut nor evicted silently."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import SpanLimits

import neatlogs_otel as neatlogs
from neatlogs_otel import _warnings
from neatlogs_otel import conventions as keys

pytestmark = pytest.mark.filterwarnings("error")


def limits(**settings: int) -> SpanLimits:
    return SpanLimits(**settings)


def test_an_id_longer_than_the_limit_is_refused(record, said, default_user) -> None:
    """An id that the SDK would cut is refused, and nobody else's takes its place."""
    recorded = record(limits=limits(max_span_attribute_length=20))
    default_user("by-init")
    with neatlogs.trace("chat", end_user_id="x" * 21):
        assert neatlogs.current_end_user() is None
    assert not recorded.id_of("chat")
    assert said.once("end_user_id", "limit of 20", "'chat'")


def test_an_id_of_exactly_the_limit(record, said) -> None:
    """An id as long as the limit stays whole."""
    recorded = record(limits=limits(max_attribute_length=20))
    with neatlogs.trace("chat", end_user_id="x" * 20):
        pass
    assert recorded.id_of("chat") == "x" * 20
    assert said.nothing()


def test_metadata_longer_than_the_limit_is_refused(record, said) -> None:
    """Metadata that the SDK would cut to broken JSON is refused; the id stays."""
    recorded = record(limits=limits(max_span_attribute_length=20))
    with neatlogs.trace("chat", end_user_id="alice", end_user_metadata={"plan": "x" * 20}):
        pass
    assert recorded.identity("chat") == ("alice", None, "trace")
    assert said.once("end_user_metadata", "limit of 20")


def test_a_late_id_longer_than_the_limit(record, said) -> None:
    """On an open root such an id takes away the default that stood there."""
    recorded = record(limits=limits(max_span_attribute_length=20))
    with recorded.tracer.start_as_current_span("server"):
        assert not neatlogs.set_end_user("x" * 21)
        assert not neatlogs.set_end_user("alice")
    assert not recorded.id_of("server")


@pytest.mark.parametrize("how", ["trace", "span", "inside"])
def test_evicted_identity_is_restored(record, said, how) -> None:
    """Identity that many later attributes have evicted is put back before the span ends."""
    recorded = record(limits=limits(max_span_attributes=8))

    def work(span) -> None:
        for at in range(20):
            span.set_attribute(f"a{at}", at)

    def current_work() -> None:
        from opentelemetry import trace as trace_api

        work(trace_api.get_current_span())

    declared = {"end_user_id": "alice", "end_user_metadata": {"plan": "pro"}, "session_id": "s1"}
    if how == "trace":
        with neatlogs.trace("root", **declared) as span:
            work(span)
    elif how == "span":
        neatlogs.span("root", **declared)(current_work)()
    else:
        with recorded.tracer.start_as_current_span("root") as span, neatlogs.trace("chat", **declared):
            work(span)
    end_user_id, metadata, _ = recorded.identity("root")
    assert (end_user_id, metadata) == ("alice", {"plan": "pro"})
    assert recorded.session_of("root") == "s1"
    assert len(recorded.named("root").attributes or {}) == 8
    assert said.nothing()


def test_evicted_identity_that_cannot_be_restored(record, said, default_user) -> None:
    """On a root that others end, lost identity is counted and said once."""
    recorded = record(limits=limits(max_span_attributes=4))
    default_user("by-init")
    for _ in range(3):
        with recorded.tracer.start_as_current_span("server") as span:
            for at in range(10):
                span.set_attribute(f"a{at}", at)
    assert said.once("'server'", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT")
    assert _warnings.count("identity_evicted") == 3


def test_room_for_one_attribute(record, said) -> None:
    """Where the limit leaves room for one attribute, it is the id."""
    recorded = record(limits=limits(max_span_attributes=1))
    with neatlogs.trace("chat", end_user_id="alice", end_user_metadata={"plan": "pro"}):
        pass
    assert dict(recorded.named("chat").attributes or {}) == {keys.END_USER_ID: "alice"}
    assert said.once("lost")


def test_no_room_at_all(record, said) -> None:
    """Where attributes are switched off, the loss is said."""
    recorded = record(limits=limits(max_span_attributes=0))
    with neatlogs.trace("chat", end_user_id="alice"):
        pass
    assert dict(recorded.named("chat").attributes or {}) == {}
    assert said.once("'chat'")
