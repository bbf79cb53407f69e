"""Which source wins, and that an id never meets another user's metadata."""

from __future__ import annotations

import itertools

import pytest
from opentelemetry.sdk.resources import Resource

import neatlogs_otel as neatlogs
from neatlogs_otel import conventions as keys
from neatlogs_otel._identity import EndUser, resolve

ON_THE_RESOURCE = {keys.END_USER_ID: "on-resource", keys.END_USER_METADATA: '{"from":"resource"}'}


@pytest.mark.parametrize("present", list(itertools.product([False, True], repeat=4)))
def test_the_highest_source_with_an_id_wins(record, default_user, present) -> None:
    """trace() beats identify(), which beats init(), which beats the resource; the winner brings its own metadata."""
    with_resource, with_init, with_identify, with_trace = present
    recorded = record(resource=Resource(ON_THE_RESOURCE if with_resource else {}))
    if with_init:
        default_user("by-init", {"from": "init"})
    identified = {"end_user_id": "by-identify", "end_user_metadata": {"from": "identify"}} if with_identify else {}
    declared = {"end_user_id": "by-trace", "end_user_metadata": {"from": "trace"}} if with_trace else {}
    with neatlogs.identify(**identified), neatlogs.trace("chat", **declared):
        pass
    expected = next(
        (
            source
            for source, there in zip(("trace", "identify", "init", "resource"), reversed(present), strict=True)
            if there
        ),
        None,
    )
    if expected is None:
        assert recorded.identity("chat") == (None, None, None)
    else:
        end_user_id = "on-resource" if expected == "resource" else f"by-{expected}"
        assert recorded.identity("chat") == (end_user_id, {"from": expected}, expected)


def test_id_and_metadata_are_one_unit(recorded, default_user) -> None:
    """An id without metadata does not take the metadata of a lower source."""
    default_user("by-init", {"plan": "free"})
    with neatlogs.trace("chat", end_user_id="alice"):
        pass
    assert recorded.identity("chat") == ("alice", None, "trace")


def test_metadata_alone_is_lent_to_the_next_id(recorded, default_user) -> None:
    """A source with metadata alone lends it to the id of the next source; of a key in both the higher source's wins."""
    default_user("by-init", {"plan": "free", "region": "eu"})
    with neatlogs.trace("chat", end_user_metadata={"plan": "pro", "seat": 4}):
        pass
    assert recorded.identity("chat") == ("by-init", {"plan": "pro", "region": "eu", "seat": 4}, "init")


def test_metadata_without_any_id(recorded) -> None:
    """Metadata that meets no id stands alone on the root."""
    with neatlogs.trace("chat", end_user_metadata={"plan": "pro"}):
        pass
    assert recorded.identity("chat") == (None, {"plan": "pro"}, "trace")


@pytest.mark.parametrize("source", ["trace", "identify", "init"])
def test_a_refused_id_ends_the_resolution(record, default_user, source) -> None:
    """A refused id leaves the trace without identity, although lower sources know somebody."""
    recorded = record(resource=Resource(ON_THE_RESOURCE) if source != "init" else Resource({}))
    default_user(True if source == "init" else "by-init", {"plan": "free"})
    with (
        neatlogs.identify(end_user_id=True if source == "identify" else "by-identify" if source == "trace" else None),
        neatlogs.trace("chat", end_user_id=True if source == "trace" else None, end_user_metadata={"x": 1}),
    ):
        pass
    end_user_id, metadata, _ = recorded.identity("chat")
    assert not end_user_id
    assert not metadata


def test_a_refused_id_keeps_the_resource_default_away(record) -> None:
    """Where the resource names somebody, a refused id puts a value in its place that no reader takes for an id."""
    recorded = record(resource=Resource(ON_THE_RESOURCE))
    with neatlogs.trace("chat", end_user_id=True):
        pass
    assert recorded.id_of("chat") is False


def test_a_higher_rank_is_not_asked_about_lower_refusals(recorded, default_user) -> None:
    """A usable id of a higher rank wins over a refused one of a lower rank."""
    default_user(True)
    with neatlogs.identify(end_user_id=True), neatlogs.trace("chat", end_user_id="alice"):
        pass
    assert recorded.id_of("chat") == "alice"


def test_replacing_on_an_open_root(recorded, default_user) -> None:
    """On an open root a higher rank replaces id, metadata and source together; metadata it lacks becomes {}."""
    default_user("by-init", {"plan": "free"})
    with recorded.tracer.start_as_current_span("server"), neatlogs.trace("chat", end_user_id="alice"):
        pass
    assert recorded.identity("server") == ("alice", {}, "trace")


def test_lending_on_an_open_root(recorded, default_user) -> None:
    """Metadata alone, declared on an open root, joins the metadata of the id that stands there."""
    default_user("by-init", {"plan": "free", "region": "eu"})
    with recorded.tracer.start_as_current_span("server"):
        assert neatlogs.set_end_user(None, {"plan": "pro"})
    assert recorded.identity("server") == ("by-init", {"plan": "pro", "region": "eu"}, "init")


def test_refusing_on_an_open_root(recorded, default_user) -> None:
    """A refused id on an open root takes away the default that stood there: an empty id and no metadata."""
    default_user("by-init", {"plan": "free"})
    with recorded.tracer.start_as_current_span("server"):
        assert not neatlogs.set_end_user(float("nan"))
        assert neatlogs.current_end_user() is None
    assert recorded.identity("server") == ("", {}, "set_end_user")


def test_a_refusal_stays_first(recorded, said) -> None:
    """At equal rank the first stays, also where the first was a refusal: the trace may hold another user's work."""
    with recorded.tracer.start_as_current_span("server"):
        neatlogs.set_end_user(True)
        assert not neatlogs.set_end_user("alice")
    assert not recorded.id_of("server")
    assert len(said.messages) == 2


def test_at_equal_rank_the_first_stays(recorded, said) -> None:
    """Of two calls of the same rank the first names the end user, and the second is a warning."""
    with recorded.tracer.start_as_current_span("server"):
        assert neatlogs.set_end_user("alice")
        assert not neatlogs.set_end_user("bob")
    assert recorded.id_of("server") == "alice"
    assert said.once("set_end_user()", "'server'", "the first stays")


def test_repeating_is_silent(recorded, said) -> None:
    """Naming the same end user again is no mistake."""
    with recorded.tracer.start_as_current_span("server"):
        assert neatlogs.set_end_user("alice", {"plan": "pro"})
        assert neatlogs.set_end_user("alice")
        with neatlogs.trace("chat", end_user_id="alice"):
            pass
    assert said.nothing()


def test_late_id_for_early_metadata(recorded) -> None:
    """Metadata that was declared first waits for an id of the same rank and stays with it."""
    with neatlogs.trace("chat", end_user_metadata={"plan": "pro"}):
        assert neatlogs.set_end_user("alice", {"plan": "free", "seat": 4})
    assert recorded.identity("chat") == ("alice", {"plan": "pro", "seat": 4}, "set_end_user")


def test_merged_metadata_that_is_too_big(recorded, default_user, said) -> None:
    """Metadata that passes the limit only when merged is refused as a whole; the id stays."""
    default_user("by-init", {"a": "x" * 9000})
    with neatlogs.trace("chat", end_user_metadata={"b": "x" * 9000}):
        pass
    assert recorded.identity("chat") == ("by-init", None, "init")
    assert said.once("end_user_metadata", "refused")


def test_identity_that_the_application_wrote_itself(recorded, default_user) -> None:
    """An id that the application has put on the root as an attribute stays, as the processor would leave it."""
    default_user("by-init", {"plan": "free"})
    with recorded.tracer.start_as_current_span("server", attributes={keys.END_USER_ID: "by-hand"}) as span:
        assert not neatlogs.set_end_user("alice")
        span.set_attribute(keys.END_USER_ID, "by-hand-later")
        assert not neatlogs.set_end_user("alice")
    assert recorded.identity("server") == ("by-hand-later", None, None)


def test_nested_identify(recorded) -> None:
    """An inner identify() names the end user; with metadata alone it adds to the outer one."""
    with neatlogs.identify(end_user_id="alice", end_user_metadata={"plan": "pro"}, session_id="s1"):
        with neatlogs.identify(end_user_metadata={"seat": 4}), recorded.tracer.start_as_current_span("one"):
            pass
        with neatlogs.identify(end_user_id="bob"), recorded.tracer.start_as_current_span("two"):
            pass
        with neatlogs.identify(end_user_id=True), recorded.tracer.start_as_current_span("three"):
            pass
    assert recorded.identity("one") == ("alice", {"plan": "pro", "seat": 4}, "identify")
    assert recorded.identity("two") == ("bob", None, "identify")
    assert recorded.identity("three") == (None, None, None)
    assert recorded.session_of("one") == "s1"


def test_resolution_of_nothing() -> None:
    """Without any source there is no end user."""
    assert resolve() is None
    assert resolve(None, None) is None
    assert resolve(None, EndUser("u", None, "init")) == EndUser("u", None, "init")
