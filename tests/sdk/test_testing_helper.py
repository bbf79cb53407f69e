"""neatlogs_otel.testing: what users' own tests can rely on."""

from __future__ import annotations

import gc

import pytest
from opentelemetry import trace as trace_api

import neatlogs_otel as neatlogs
from neatlogs_otel import testing
from neatlogs_otel._context import Attached
from support.recording import remote_parent


def test_ids_are_fixed() -> None:
    """Trace and span ids count from one in every capture."""
    for _ in range(2):
        with testing.capture() as captured:
            with neatlogs.trace("one"), neatlogs.trace("inner"):
                pass
            with neatlogs.trace("two"):
                pass
        ids = [(span.name, span.context.trace_id, span.context.span_id) for span in captured.spans]
        assert ids == [("inner", 1, 2), ("one", 1, 1), ("two", 2, 3)]


def test_who_a_trace_served() -> None:
    """The end user of a trace is found by a span's name, a span or the trace id."""
    with testing.capture() as captured:
        with neatlogs.trace("chat", end_user_id="alice", end_user_metadata={"plan": "pro"}, session_id="s1"):
            neatlogs.trace("inner").__enter__().end()
        with neatlogs.trace("nobody"):
            pass
    alice = captured.end_user_of("inner")
    assert alice == captured.end_user_of("chat") == captured.end_user_of(1) == captured.end_user_of(captured.spans[0])
    assert alice is not None
    assert (alice.id, alice.metadata, alice.source) == ("alice", {"plan": "pro"}, "trace")
    assert captured.session_of("inner") == "s1"
    assert captured.end_user_of("nobody") is None
    assert captured.session_of("nobody") is None
    assert [span.name for span in captured.roots] == ["chat", "nobody"]


def test_what_is_not_there() -> None:
    """Asking for a span that is missing or ambiguous, or a trace without a root, says so."""
    with testing.capture() as captured:
        for _ in range(2):
            with neatlogs.trace("twice"):
                pass
        with Attached(remote_parent()), neatlogs.trace("entry"):
            pass
    with pytest.raises(LookupError, match="0 spans are named 'other'; captured: entry, twice"):
        captured.named("other")
    with pytest.raises(LookupError, match="2 spans"):
        captured.end_user_of("twice")
    with pytest.raises(LookupError, match="root span"):
        captured.end_user_of("entry")


def test_a_stand_in_for_init() -> None:
    """The block's own defaults stand in for init(), and are gone afterwards."""
    with (
        testing.capture(end_user_id="cli", end_user_metadata={"a": 1}, session_id="s") as captured,
        neatlogs.trace("job"),
    ):
        pass
    job = captured.end_user_of("job")
    assert job == neatlogs.EndUser("cli", '{"a":1}', "init")
    assert neatlogs.current_end_user() is None


def test_the_rule_is_enforced() -> None:
    """Captured spans look as they would behind the processor."""
    with testing.capture() as captured, neatlogs.trace("chat", end_user_id="alice") as root:
        captured.tracer_provider.get_tracer("x").start_span("child", attributes={"neatlogs.end_user.id": "bob"}).end()
        assert root.is_recording()
    assert dict(captured.named("child").attributes or {}) == {}
    assert captured.warnings["override_ignored"] == 1


def test_what_was_set_up_before_comes_back(recorded) -> None:
    """A capture hides an open trace and the provider in use, and puts both back."""
    with neatlogs.trace("around", end_user_id="alice"):
        with testing.capture() as captured:
            assert trace_api.get_current_span() is trace_api.INVALID_SPAN
            with neatlogs.trace("inside", end_user_id="bob"):
                pass
        current = neatlogs.current_end_user()
        assert current is not None
        assert current.id == "alice"
    assert [span.name for span in captured.spans] == ["inside"]
    assert [span.name for span in recorded.spans] == ["around"]


def test_captures_can_be_cleared() -> None:
    """clear() forgets what was captured so far."""
    with testing.capture() as captured:
        with neatlogs.trace("one"):
            pass
        captured.clear()
        with neatlogs.trace("two"):
            pass
    assert [span.name for span in captured.spans] == ["two"]


def test_ids_that_repeat() -> None:
    """A root that an earlier capture left open, or dropped, does not stand in for one of the same ids."""
    left_open = []
    for user in ("alice", "bob", "carol"):
        with testing.capture() as captured:
            with neatlogs.trace("chat", end_user_id=user):
                pass
            tracer = captured.tracer_provider.get_tracer("x")
            left_open.append(tracer.start_span("left open"))
            tracer.start_span("dropped")
            gc.collect()
            with neatlogs.trace("late"):
                assert neatlogs.set_end_user(user)
        alike = captured.end_user_of("chat"), captured.end_user_of("late")
        assert [one.id if one else None for one in alike] == [user, user]
    with testing.capture() as captured:
        for user in ("a", "b", "c", "d"):
            with neatlogs.trace(user, end_user_id=user):
                assert neatlogs.current_end_user() == neatlogs.EndUser(user, None, "trace")
        assert [getattr(captured.end_user_of(user), "id", None) for user in ("a", "b", "c", "d")] == [
            "a",
            "b",
            "c",
            "d",
        ]


def test_a_test_that_fails_inside() -> None:
    """An exception inside the block passes, and what was set up before is back in place."""
    with pytest.raises(ZeroDivisionError), testing.capture(end_user_id="cli"):
        raise ZeroDivisionError
    assert neatlogs.current_end_user() is None


def test_entry_spans() -> None:
    """With roots="entry" entry spans carry identity in the capture as well."""
    with (
        testing.capture(roots="entry") as captured,
        Attached(remote_parent()),
        neatlogs.trace("entry", end_user_id="alice"),
    ):
        pass
    assert (captured.named("entry").attributes or {})["neatlogs.end_user.id"] == "alice"
