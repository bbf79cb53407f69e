"""Traces as senders really send them: in pieces, twice, without a root, with two, over midnight, at no known time."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, Phase, assume, given, note, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.query.text import parse
from neatlogs_processor.query.view import ALL_TIME, Period, View
from neatlogs_processor.store.clickhouse.asking import MAX_LITERAL
from support.store_oracle import Sent
from support.store_strategies import ENTRY_SERVICE, attributes, request, sent_spans
from support.stored import DAY, MINUTE, NOW, SECOND, Stored
from support.two_engines import Database, as_text, everything_else, lists_of, two_engines

EXAMPLES = int(os.environ.get("CONFORMANCE_EXAMPLES", "3"))
POLICIES = [EndUserPolicy(), EndUserPolicy(roots="entry", entry_services=frozenset({ENTRY_SERVICE}))]
MIDNIGHT = NOW - NOW % DAY


def placed(sent: list[Sent]) -> list[Sent]:
    """Return the spans within two days, and no two traces with the same start: which of them is first is open.

    A session that is a fraction or a truth value is none, and text in the Collector's table: so there is no such one.
    """
    seen: set[bytes] = set()
    for one in sent:
        span = one.span
        for name in ("start_time_unix_nano", "end_time_unix_nano"):
            time = getattr(span, name)
            if time or (name.startswith("start") and span.trace_id not in seen):
                setattr(span, name, MIDNIGHT - DAY + time % (2 * DAY) + span.trace_id[0])
        seen.add(span.trace_id)
        for attribute in span.attributes:
            if attribute.key == "session.id" and attribute.value.WhichOneof("value") in ("bool_value", "double_value"):
                attribute.value.string_value = "odd"
    return sent


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(sent_spans().map(placed), st.sampled_from(POLICIES))
def test_whatever_is_sent_is_read_the_same(database: Database, sent: list[Sent], policy: EndUserPolicy) -> None:
    """Spans of any kind, with any attributes, times and parents, make the same traces, sessions and end users."""
    with two_engines(database, [enforce_traces(request(sent), policy).body], policy=policy) as engines:
        note(str(sent))
        view = View(period=ALL_TIME)
        there, here = lists_of(engines.clickhouse, view), lists_of(engines.sqlite, view)
        # Of traces that state no start, which comes first is open, too.
        assume(len({row.start for row in here["traces"]}) == len(here["traces"]))
        traces = sorted({one.span.trace_id.hex() for one in sent})
        there |= everything_else(engines.clickhouse, view, traces)
        here |= everything_else(engines.sqlite, view, traces)
        assert (known(there), there) == (known(here), here)


def known(said: dict[str, Any]) -> None:
    """Leave out the latest metadata of end users where roots contradict each other: ClickHouse may name the loser's."""
    if any(row is not None and row.trace.roots > 1 for row in said["whole"].values()):
        said["users"] = [replace(row, metadata=None) for row in said["users"]]
        said["each user"] = {
            name: replace(one, user=replace(one.user, metadata=None)) for name, one in said["each user"].items()
        }


def one_request(*spans: Span, **resource: str) -> bytes:
    """Return a request with these spans."""
    message = ExportTraceServiceRequest()
    container = message.resource_spans.add()
    container.resource.attributes.extend(attributes({"service.name": "shop", **resource}))
    container.scope_spans.add(spans=spans).scope.name = "tests"
    return message.SerializeToString()


def span(number: int, trace: int = 1, parent: int | None = None, start: int = NOW - MINUTE, **said: object) -> Span:
    """Return a span of a second."""
    return Span(
        trace_id=trace.to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        parent_span_id=b"" if parent is None else parent.to_bytes(8, "big"),
        name=f"step {number}",
        start_time_unix_nano=start,
        end_time_unix_nano=start + SECOND,
        attributes=attributes(said),
    )


def test_a_span_is_whole(database: Database) -> None:
    """Events, links, status, kind and scope stand on the page as they do with the embedded store."""
    root = span(1, **{"neatlogs.session.id": "s"})
    root.kind = Span.SPAN_KIND_SERVER
    root.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message="it \x00 broke"))
    root.events.add(name="said", time_unix_nano=NOW, attributes=attributes({"text": "hällo", "n": 5}))
    root.events.add(name="", attributes=[])
    root.links.add(trace_id=b"\1" * 16, span_id=b"\2" * 8, attributes=attributes({"why": "it was asked"}))
    child = span(2, parent=1, **{"openinference.span.kind": "LLM", "llm.token_count.total": 7, "yes": True})
    child.attributes.add(key="list").value.array_value.values.add(string_value="ä")
    body = one_request(root, child, span(3, parent=9), **{"neatlogs.workflow_name": "chat"})
    with two_engines(database, [body]) as engines:
        trace = root.trace_id.hex()
        there, here = engines.clickhouse.trace(trace), engines.sqlite.trace(trace)
        assert there is not None
        assert as_text(there) == as_text(here)
        assert [(one.depth, one.kind, one.tokens) for one in there.spans] == [(0, "", 0), (1, "llm", 7), (0, "", 0)]


def test_of_two_roots_the_earliest_speaks(database: Database) -> None:
    """A conflict of roots is decided and shown alike, whichever came first, and however often they come."""
    early = span(2, start=NOW - MINUTE, **{"neatlogs.end_user.id": "early"})
    late = span(1, start=NOW - SECOND, **{"neatlogs.end_user.id": "late"})
    for bodies in ([one_request(early, late)], [one_request(late), one_request(early), one_request(late, early)]):
        with two_engines(database, bodies) as both:
            view = View()
            assert lists_of(both.clickhouse, view) == lists_of(both.sqlite, view)
            (row,) = both.clickhouse.traces(view, now=NOW).rows
            assert (row.end_user, row.roots, row.spans) == ("early", 2, 2)


def test_a_request_that_comes_twice_counts_once(database: Database) -> None:
    """Sums, lists and the trace itself are the same after a second delivery, before anything is merged."""
    traces = [
        Stored(number, f"user {number % 2}", {"n": number}, tokens=3, spans=3, errors=1, ago=number)
        for number in range(5)
    ]
    with two_engines(database, traces) as engines:
        database.client.command("SYSTEM STOP MERGES")
        try:
            for trace in traces:
                database.add([trace.request()])
            view = View()
            assert lists_of(engines.clickhouse, view) == lists_of(engines.sqlite, view)
            asked = [trace.trace_id for trace in traces[:2]]
            assert everything_else(engines.clickhouse, view, asked) == everything_else(engines.sqlite, view, asked)
        finally:
            database.client.command("SYSTEM START MERGES")


def test_a_trace_over_midnight_is_one(database: Database) -> None:
    """A trace of two days has a row in each of them, and is one trace in every period that touches one of them."""
    bodies = [
        one_request(span(1, start=MIDNIGHT - SECOND), span(2, parent=1, start=MIDNIGHT + SECOND)),
        one_request(span(1, trace=2, start=MIDNIGHT - 2 * SECOND)),
        one_request(span(1, trace=3, start=MIDNIGHT + 2 * SECOND)),
    ]
    with two_engines(database, bodies) as engines:
        for low, high in ((-SECOND, SECOND), (0, DAY), (-DAY, 0), (-DAY, -SECOND + 1), (SECOND, DAY)):
            view = View(period=Period(start=MIDNIGHT + low, end=MIDNIGHT + high))
            assert lists_of(engines.clickhouse, view) == lists_of(engines.sqlite, view)


def test_impossible_times_are_shown_alike(database: Database) -> None:
    """A start that nobody stated, one in the far future, and an end before its start, are the same on both."""
    backwards = span(1, trace=3)
    backwards.end_time_unix_nano = backwards.start_time_unix_nano - MINUTE
    unfinished = span(1, trace=6)
    unfinished.end_time_unix_nano = 0
    bodies = [
        one_request(span(1, trace=1, start=0)),
        one_request(span(1, trace=2, start=2**63 - 1 - 2 * SECOND)),
        one_request(backwards),
        one_request(span(1, trace=4, start=0), span(2, trace=4, parent=1, start=NOW - MINUTE + 1)),
        one_request(span(1, trace=5, start=7_000_000_000 * SECOND)),
        one_request(unfinished),
    ]
    with two_engines(database, bodies) as engines:
        for view in (View(period=ALL_TIME), View(), View(period=Period(start=NOW)), View(period=Period(end=1))):
            assert lists_of(engines.clickhouse, view) == lists_of(engines.sqlite, view)
        for trace in range(1, 7):
            name = trace.to_bytes(16, "big").hex()
            assert as_text(engines.clickhouse.trace(name)) == as_text(engines.sqlite.trace(name))


def test_a_session_whose_root_states_no_start_is_whole(database: Database) -> None:
    """Its root has no day, and its spans are found all the same."""
    root = span(1, start=0, **{"neatlogs.session.id": "s"})
    with two_engines(database, [one_request(root, span(2, parent=1))]) as engines:
        assert engines.clickhouse.session("s") == engines.sqlite.session("s")


def test_more_traces_than_are_named_are_found_all_the_same(database: Database) -> None:
    """Where an end user has more traces than a statement names, the server looks them up by itself."""
    traces = [Stored(number, "somebody", ago=number * SECOND) for number in range(MAX_LITERAL + 5)]
    traces += [Stored(90_000 + number, "else", ago=number) for number in range(3)]
    database.fill([trace.request() for trace in traces])
    view = View(filters=parse("end_user is somebody"))
    assert database.reader.summary(view, now=NOW).traces == MAX_LITERAL + 5
    assert database.reader.summary(View(filters=parse("end_user is else")), now=NOW).traces == 3
