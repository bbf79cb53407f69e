"""A whole trace, a whole session, an end user; coverage; what was observed."""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from neatlogs_processor.core.policy import EndUserPolicy, Override, Place
from neatlogs_processor.errors import StoreUnavailableError
from neatlogs_processor.query.fields import Field
from neatlogs_processor.query.results import HandlerRow, OverridePlaceRow, OverrideRow, ValueCount
from neatlogs_processor.query.text import parse
from neatlogs_processor.query.view import ALL_TIME, Period, Tab, View
from neatlogs_processor.store.details import plain_attributes
from neatlogs_processor.store.files import open_writer
from neatlogs_processor.store.reader import SqliteReader
from neatlogs_processor.store.rows import read_request
from neatlogs_processor.store.writing import Writing
from support.spans import attributes
from support.stored import DAY, MINUTE, NOW, SECOND, Stored, store

TRACE_ID = "0102030405060708090a0b0c0d0e0f10"


def stored_request(path: Path, *spans: tuple[int, int, str]) -> SqliteReader:
    """Store one trace of spans, each with its id, its parent's id (0: none) and its name; return a reader."""
    message = ExportTraceServiceRequest()
    scope_spans = message.resource_spans.add().scope_spans.add()
    scope_spans.scope.name, scope_spans.scope.version = "lib", "1.2"
    message.resource_spans[0].resource.attributes.extend(attributes({"service.name": "shop"}))
    for number, parent, name in spans:
        scope_spans.spans.add(
            trace_id=bytes.fromhex(TRACE_ID),
            span_id=bytes([number] * 8),
            parent_span_id=bytes([parent] * 8) if parent else b"",
            name=name,
            start_time_unix_nano=NOW + number,
            end_time_unix_nano=NOW + number + 10,
        )
    first = scope_spans.spans[0]
    first.attributes.extend(attributes({"input.value": "Hello <script>"}))
    first.events.add(name="exception", time_unix_nano=NOW + 5, attributes=attributes({"exception.type": "E"}))
    first.links.add(trace_id=b"\x01" * 16, span_id=b"\x02" * 8)
    first.kind, first.dropped_attributes_count = 2, 3
    first.status.code, first.status.message = 2, "it broke"
    connection = open_writer(path)
    Writing(connection).write([(read_request(message.SerializeToString(), EndUserPolicy()), ())], NOW)
    connection.close()
    return SqliteReader(path)


def test_a_trace_is_shown_whole(tmp_path: Path) -> None:
    """Every span comes with its attributes, resource, scope, events, links and status."""
    reader = stored_request(tmp_path / "traces.db", (1, 0, "root"), (2, 1, "child"))
    found = reader.trace(TRACE_ID.upper())
    reader.close()
    assert found is not None
    root, child = found.spans
    assert (root.name, root.otel_kind, root.status, root.status_message) == ("root", "server", "error", "it broke")
    assert (root.service, root.scope, root.dropped, root.owns_identity) == ("shop", "lib 1.2", 3, True)
    assert (root.start, root.duration) == (NOW + 1, 10)
    assert root.attributes == {"input.value": "Hello <script>"}
    assert root.resource == {"service.name": "shop"}
    assert [(event.name, event.attributes) for event in root.events] == [("exception", {"exception.type": "E"})]
    assert [(link.trace_id, link.span_id) for link in root.links] == [("01" * 16, "02" * 8)]
    assert (child.parent_id, child.depth, child.owns_identity) == ("01" * 8, 1, False)


def test_a_waterfall_has_parents_before_their_children(tmp_path: Path) -> None:
    """Children stand under their parents by start; a span whose parent is not here, and a circle, stand on the top."""
    reader = stored_request(
        tmp_path / "traces.db",
        *[(6, 0, "root"), (3, 6, "early"), (4, 6, "late"), (5, 3, "inner"), (1, 77, "lost"), (7, 8, "a"), (8, 7, "b")],
        (9, 9, "itself"),
    )
    found = reader.trace(TRACE_ID)
    reader.close()
    assert found is not None
    assert [(span.name, span.depth) for span in found.spans] == [
        *[("lost", 0), ("root", 0), ("early", 1), ("inner", 2), ("late", 1), ("itself", 0), ("a", 0), ("b", 1)]
    ]


@pytest.mark.parametrize("trace_id", ["ab" * 16, "xyz", ""])
def test_a_trace_that_is_not_here_is_none(tmp_path: Path, trace_id: str) -> None:
    """No trace, no answer."""
    with store(tmp_path / "traces.db", [Stored(1)]) as reader:
        assert reader.trace(trace_id) is None


def test_attributes_of_every_type_become_json() -> None:
    """Bytes are base64, infinities text, lists and maps stay; of a key that stands twice the first counts."""
    values = [
        ("text", AnyValue(string_value="a")),
        ("text", AnyValue(string_value="b")),
        ("whole", AnyValue(int_value=-(2**63))),
        ("real", AnyValue(double_value=1.5)),
        ("endless", AnyValue(double_value=float("inf"))),
        ("yes", AnyValue(bool_value=True)),
        ("raw", AnyValue(bytes_value=b"\x00\xff")),
        ("nothing", AnyValue()),
        ("list", AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=1), AnyValue(string_value="x")]))),
        ("map", AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="k", value=AnyValue(int_value=1))]))),
    ]
    assert plain_attributes(KeyValue(key=key, value=value) for key, value in values) == {
        "text": "a",
        "whole": -(2**63),
        "real": 1.5,
        "endless": "inf",
        "yes": True,
        "raw": "AP8=",
        "nothing": None,
        "list": [1, "x"],
        "map": {"k": 1},
    }


def test_a_session_has_its_turns_in_order(tmp_path: Path) -> None:
    """All its traces, whenever they were, the first one first."""
    traces = [Stored(1, "ali", session="a/b", ago=MINUTE), Stored(2, "bob", session="a/b", ago=40 * DAY), Stored(3)]
    with store(tmp_path / "traces.db", traces) as reader:
        found = reader.session("a/b")
        assert found is not None
        assert [trace.end_user for trace in found.traces] == ["bob", "ali"]
        assert (found.session.traces, found.session.mixed) == (2, True)
        assert reader.session("nobody's") is None


def test_an_end_user_has_sums_sessions_and_a_history(tmp_path: Path) -> None:
    """Sums and lists are those of the period; first and last seen are of all time."""
    traces = [
        Stored(1, "ali", {"plan": "pro"}, session="new", tokens=3, ago=MINUTE, status="error"),
        Stored(2, "ali", {"plan": "free"}, session="old", tokens=4, ago=20 * DAY),
        Stored(3, "bob"),
    ]
    with store(tmp_path / "traces.db", traces) as reader:
        found = reader.user("ali", View(Tab.USERS), now=NOW)
        assert found is not None
        assert (found.user.traces, found.user.tokens, found.user.errors) == (1, 3, 1)
        assert (found.user.first_seen, found.user.last_seen) == (NOW - 20 * DAY, NOW - MINUTE)
        assert found.user.metadata == {"plan": "pro"}
        assert [session.session for session in found.sessions] == ["new"]
        assert [trace.trace_id for trace in found.traces] == [traces[0].trace_id]
        assert sum(bucket.traces for bucket in found.buckets) == 1
        quiet = reader.user("ali", View(Tab.USERS, period=Period(last=SECOND)), now=NOW)
        assert quiet is not None
        assert (quiet.user.traces, quiet.user.last_seen, quiet.traces) == (0, NOW - MINUTE, ())
        assert reader.user("nobody", View(Tab.USERS), now=NOW) is None


def test_traces_over_time_are_counted_in_equal_pieces(tmp_path: Path) -> None:
    """Every trace of the period is in one piece, the one from the near future in the last."""
    traces = [
        Stored(1, "ali", ago=59 * SECOND),
        Stored(2, "ali", status="error", ago=SECOND),
        Stored(3, "bob", ago=-SECOND),
    ]
    with store(tmp_path / "traces.db", traces) as reader:
        view = View(period=Period(last=MINUTE))
        buckets = reader.histogram(view, now=NOW, buckets=6)
        assert [(bucket.traces, bucket.errors) for bucket in buckets] == [(1, 0), *[(0, 0)] * 4, (2, 1)]
        assert [bucket.start for bucket in buckets] == [NOW - MINUTE + 10 * SECOND * piece for piece in range(6)]
        lines = reader.sparklines(["ali", "nobody"], view, now=NOW, buckets=3)
        assert lines == {"ali": (1, 0, 1), "nobody": (0, 0, 0)}
        assert reader.sparklines([], view, now=NOW, buckets=3) == {}
        everything = reader.histogram(View(period=ALL_TIME), now=NOW, buckets=2)
        assert everything[0].start == NOW - 59 * SECOND
        assert sum(bucket.traces for bucket in everything) == 3
        assert (
            sum(bucket.traces for bucket in reader.histogram(view.with_filters(parse("tag is x")), now=NOW, buckets=2))
            == 0
        )


def test_coverage_says_who_forgot_the_end_user(tmp_path: Path) -> None:
    """By service and by day; a trace whose root has not arrived is neither with nor without."""
    traces = [
        Stored(1, "ali", services=("shop",)),
        Stored(2, None, services=("shop",), name="POST /chat", ago=2 * MINUTE),
        Stored(3, None, services=("shop",), name="POST /chat", ago=MINUTE),
        Stored(4, "bob", services=("mail",), ago=DAY),
        Stored(5, services=("mail",), root_received=False, ago=DAY),
    ]
    trace_id = bytes.fromhex(traces[-1].trace_id)
    overrides = [
        Override(trace_id, (1).to_bytes(8, "big"), "mail", "tool", Place.CHILD, "neatlogs.end_user.id"),
        Override(b"", b"", "mail", "lib", Place.SCOPE, "neatlogs.end_user.id"),
    ]
    with store(tmp_path / "traces.db", traces, overrides) as reader:
        found = reader.coverage(View(Tab.COVERAGE), now=NOW + 1)
        assert found.total.share == 0.5
        said = [(row.key, row.with_end_user, row.without_end_user, row.root_not_received) for row in found.services]
        assert said == [("shop", 1, 2, 0), ("mail", 1, 0, 1)]
        assert [(row.key, row.traces, row.share) for row in found.days] == [
            ("2026-11-17", 2, 1.0),
            ("2026-11-18", 3, pytest.approx(1 / 3)),
        ]
        assert found.handlers == (HandlerRow("shop", "POST /chat", 2, traces[2].trace_id),)
        assert found.overrides == (
            OverridePlaceRow("mail", "lib", "scope", "neatlogs.end_user.id", 1, ""),
            OverridePlaceRow("mail", "tool", "child", "neatlogs.end_user.id", 1, traces[-1].trace_id),
        )
        filtered = reader.coverage(View(Tab.COVERAGE, parse("service is mail")), now=NOW + 1)
        assert [row.place for row in filtered.overrides] == ["child"]
        detail = reader.trace(traces[-1].trace_id)
        assert detail is not None
        assert detail.trace.overrides == 1
        assert detail.overrides == (OverrideRow("00" * 7 + "01", "child", "mail", "tool", "neatlogs.end_user.id"),)
        nothing = reader.coverage(View(Tab.COVERAGE, parse("tag is x")), now=NOW)
        assert (nothing.total.traces, nothing.total.share) == (0, None)


@pytest.mark.parametrize(
    ("field", "prefix", "values"),
    [
        (Field("end_user"), "", [("ali", 2), ('"bob, the 2nd"', 1)]),
        (Field("end_user"), "AL", [("ali", 2)]),
        (Field("service"), "", [("shop", 3), ("db", 1)]),
        (Field("tag"), "x", [("x y", 1)]),
        (Field("status"), "", [("unset", 2), ("error", 1)]),
        (Field("metadata", "plan"), "", [("pro", 1), ('"1"', 1)]),
        (Field("metadata", "seats"), "", [("5", 1)]),
        (Field("metadata", "company.name"), "", [("acme", 1)]),
        (Field("metadata", "list"), "", []),
        (Field("tokens"), "", []),
    ],
)
def test_observed_values_are_offered_as_they_are_typed(
    tmp_path: Path, field: Field, prefix: str, values: list[tuple[str, int]]
) -> None:
    """With the number of their traces, the most frequent first; a value that needs quotes has them."""
    traces = [
        Stored(1, "ali", {"plan": "pro", "seats": 5, "list": [1]}, services=("shop", "db")),
        Stored(2, "ali", {"plan": "1", "company": {"name": "acme"}}, status="error", tags=("x y",)),
        Stored(3, "bob, the 2nd"),
    ]
    with store(tmp_path / "traces.db", traces) as reader:
        found = reader.values(field, prefix, View(), now=NOW, limit=5)
        assert sorted(found, key=str) == sorted([ValueCount(*value) for value in values], key=str)
        assert [one.traces for one in found] == sorted([one.traces for one in found], reverse=True)
        keys = reader.metadata_keys("PL", View(), now=NOW, limit=5)
        assert keys == (ValueCount("plan", 2),)
        every = reader.metadata_keys("", View(), now=NOW, limit=9)
        assert {one.value for one in every} == {"plan", "seats", "list", "company.name"}


def test_what_is_offered_can_be_typed(tmp_path: Path) -> None:
    """An offered value, put behind its field, is a filter that selects the traces that were counted."""
    traces = [Stored(1, "a and b"), Stored(2, 'quo"te'), Stored(3, "שלום"), Stored(4, "set")]
    with store(tmp_path / "traces.db", traces) as reader:
        for offered in reader.values(Field("end_user"), "", View(), now=NOW, limit=9):
            page = reader.traces(View(filters=parse(f"end_user is {offered.value}")), now=NOW)
            assert len(page.rows) == offered.traces


def test_what_is_damaged_is_said(tmp_path: Path) -> None:
    """A block that is not one any more, and a table that is gone, are errors with a sentence; the rest answers."""
    path = tmp_path / "traces.db"
    with store(path, [Stored(1, "ali")]) as reader:
        writer = open_writer(path)
        writer.execute("UPDATE blocks SET body = x'00'")
        with pytest.raises(StoreUnavailableError, match="damaged"):
            reader.trace(Stored(1).trace_id)
        assert len(reader.traces(View(), now=NOW).rows) == 1
        writer.execute("DROP TABLE overrides")
        writer.close()
        with pytest.raises(StoreUnavailableError, match="could not be read"):
            reader.coverage(View(Tab.COVERAGE), now=NOW)
