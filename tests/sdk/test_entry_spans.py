"""Traces that another service has started: strict by default, entry spans on request, and requests never mixed."""

from __future__ import annotations

import asyncio

from opentelemetry import trace as trace_api

import neatlogs_otel as neatlogs
from neatlogs_otel._context import Attached
from support.recording import Recording, remote_parent


def test_an_entry_span_carries_nothing(recorded, default_user, said) -> None:
    """By default the service that started the trace owns the end user; a default here is not put on entry spans."""
    default_user("by-init")
    with recorded.tracer.start_as_current_span("server", context=remote_parent()):
        assert neatlogs.current_end_user() is None
    assert recorded.identity("server") == (None, None, None)
    assert said.nothing()


def test_naming_on_an_entry_span_warns(recorded, said) -> None:
    """trace() and set_end_user() under a remote parent have no effect; the warning names the entry span and the way."""
    with recorded.tracer.start_as_current_span("server", context=remote_parent()):
        with neatlogs.trace("chat", end_user_id="alice"):
            pass
        assert not neatlogs.set_end_user("alice")
    assert len(said.messages) == 2
    assert all("'server'" in message and 'roots="entry"' in message for message in said.messages)
    assert {(s.attributes or {}).get("neatlogs.end_user.id") for s in recorded.spans} == {None}


def test_trace_directly_under_a_remote_parent_warns(recorded, said) -> None:
    """trace() that opens the entry span itself has no effect on it either."""
    with Attached(remote_parent()), neatlogs.trace("chat", end_user_id="alice"):
        pass
    assert recorded.id_of("chat") is None
    assert said.once("trace('chat')", "another service")


def test_trace_under_a_remote_parent_without_our_span_processor(record, said) -> None:
    """The warning gives the true cause also where the provider has no span processor of ours."""
    record(ours=False)
    with Attached(remote_parent()), neatlogs.trace("chat", end_user_id="alice"):
        pass
    assert said.once("trace('chat')", "another service")


def test_set_end_user_directly_under_a_remote_parent_warns(recorded, said) -> None:
    """Where only the remote parent is current, no span of this process could take the end user."""
    with Attached(remote_parent()):
        assert not neatlogs.set_end_user("alice")
    assert said.once("another service")


def test_set_end_user_under_a_remote_parent_that_is_sampled_out(recorded, said) -> None:
    """Where the other service has sampled the trace out, there is nothing to say."""
    with Attached(remote_parent(sampled=False)):
        assert not neatlogs.set_end_user("alice")
    assert said.messages == []


def test_identify_around_an_entry_span_warns(recorded, said) -> None:
    """identify() that an entry span cannot take is not dropped silently."""
    with neatlogs.identify(end_user_id="alice"):
        recorded.tracer.start_span("server", context=_with_identity_of_here()).end()
    assert recorded.id_of("server") is None
    assert said.once("identify()", "'server'", 'roots="entry"')


def _with_identity_of_here():
    remote = trace_api.get_current_span(remote_parent())
    return trace_api.set_span_in_context(remote)


def test_entry_spans_on_request(record, default_user, said) -> None:
    """With roots="entry" an entry span is treated as a root: defaults, identify(), trace() and set_end_user()."""
    recorded = record(roots="entry")
    default_user("by-init", {"plan": "free"}, session_id="s0")
    with recorded.tracer.start_as_current_span("one", context=remote_parent(1, 1)):
        pass
    with neatlogs.identify(end_user_id="bob"):
        recorded.tracer.start_span("two", context=_with_identity_of_here()).end()
    with (
        recorded.tracer.start_as_current_span("three", context=remote_parent(3, 3)),
        neatlogs.trace("chat", end_user_id="alice"),
    ):
        pass
    with Attached(remote_parent(4, 4)), neatlogs.trace("four", end_user_id="carol"):
        assert neatlogs.current_end_user() == neatlogs.EndUser("carol", None, "trace")
    with recorded.tracer.start_as_current_span("five", context=remote_parent(5, 5)):
        assert neatlogs.set_end_user("dan")
    assert recorded.identity("one") == ("by-init", {"plan": "free"}, "init")
    assert recorded.session_of("one") == "s0"
    assert recorded.id_of("two") == "bob"
    assert recorded.identity("three") == ("alice", {}, "trace")
    assert recorded.id_of("chat") is None
    assert recorded.id_of("four") == "carol"
    assert recorded.id_of("five") == "dan"
    assert said.nothing()


def test_a_root_in_this_process_outranks_entry_spans(record) -> None:
    """Where the trace's root is open in this process too, the end user goes to the root."""
    recorded = record(roots="entry")
    with recorded.tracer.start_as_current_span("client") as client:
        context = client.get_span_context()
        with recorded.tracer.start_as_current_span("server", context=remote_parent(context.trace_id, context.span_id)):
            assert neatlogs.set_end_user("alice")
    assert recorded.id_of("client") == "alice"
    assert recorded.id_of("server") is None


async def test_two_requests_under_one_traceparent(record, said) -> None:
    """Concurrent requests under one incoming traceparent never exchange users, however late they name them."""
    recorded = record(roots="entry")
    all_open = asyncio.Barrier(8) if hasattr(asyncio, "Barrier") else None

    async def request(user: int) -> None:
        with recorded.tracer.start_as_current_span(f"server {user}", context=remote_parent()):
            if all_open is not None:
                await all_open.wait()
            with neatlogs.trace(f"chat {user}", end_user_id=user if user % 2 else None):
                await asyncio.sleep(0)
                with recorded.tracer.start_as_current_span("deeper"):
                    await asyncio.sleep(0)
                    assert neatlogs.set_end_user(user)
                    current = neatlogs.current_end_user()
                    assert current is not None
                    assert current.id == str(user)
            if all_open is not None:
                await all_open.wait()

    await asyncio.gather(*(request(user) for user in range(8)))
    assert {recorded.id_of(f"server {user}") for user in range(8)} == {str(user) for user in range(8)}
    assert all(recorded.id_of(f"server {user}") == str(user) for user in range(8))
    assert said.nothing()


def test_an_ambiguous_place_names_nobody(record, said) -> None:
    """With several open entry spans of one trace, a place that is not directly under one of them names nobody."""
    recorded = record(roots="entry")
    first = recorded.tracer.start_span("server 1", context=remote_parent(7, 7))
    second = recorded.tracer.start_span("server 2", context=remote_parent(7, 7))
    with (
        trace_api.use_span(first),
        recorded.tracer.start_as_current_span("middleware"),
        recorded.tracer.start_as_current_span("deeper"),
    ):
        assert not neatlogs.set_end_user("alice")
    first.end()
    second.end()
    assert recorded.id_of("server 1") is None
    assert recorded.id_of("server 2") is None
    assert said.once("several requests")


def test_two_span_processors_of_ours(record) -> None:
    """Two span processors of ours on one provider change nothing; the more permissive setting holds."""
    recorded: Recording = record()
    recorded.provider.add_span_processor(neatlogs.EndUserSpanProcessor(roots="entry"))
    with Attached(remote_parent()), neatlogs.trace("entry", end_user_id="alice"):
        pass
    with neatlogs.trace("root", end_user_id="bob"):
        pass
    assert recorded.id_of("entry") == "alice"
    assert recorded.id_of("root") == "bob"
