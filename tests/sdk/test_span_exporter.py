"""EndUserSpanExporter: the rule of the processor, in the process, on copies."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, TraceFlags

import neatlogs_otel as neatlogs
from neatlogs_otel import _warnings
from neatlogs_otel import conventions as keys
from support.recording import remote_parent

ID, METADATA, SOURCE = keys.END_USER_ID, keys.END_USER_METADATA, keys.END_USER_SOURCE
CONTEXT = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1))
LOCAL = SpanContext(1, 3, is_remote=False, trace_flags=TraceFlags(1))
REMOTE = SpanContext(1, 3, is_remote=True, trace_flags=TraceFlags(1))


def span(
    attributes: Any = None, *, parent: SpanContext | None = None, resource: Any = None, **more: Any
) -> ReadableSpan:
    scope = more.pop("scope", None)
    return ReadableSpan(
        "a span",
        context=CONTEXT,
        parent=parent,
        attributes=attributes or {},
        resource=Resource(resource or {}),
        instrumentation_scope=InstrumentationScope("lib", "1", None, scope),
        **more,
    )


def exported(*spans: ReadableSpan, **settings: Any) -> list[ReadableSpan]:
    """What reaches the wrapped exporter."""
    inner = InMemorySpanExporter()
    assert neatlogs.EndUserSpanExporter(inner, **settings).export(spans) is SpanExportResult.SUCCESS
    return list(inner.get_finished_spans())


def only(one: ReadableSpan, **settings: Any) -> ReadableSpan:
    return exported(one, **settings)[0]


@pytest.mark.parametrize(
    ("given_", "left"),
    [
        ({ID: "alice", METADATA: "not even JSON", SOURCE: "x", "neatlogs.end_user.other": "y"}, None),
        ({ID: ""}, None),
        ({ID: 7}, {ID: "7"}),
        ({ID: True}, {}),
        ({ID: 1.5}, {}),
        ({ID: ("a", "b")}, {}),
        (
            {METADATA: {"b": b"\x00", "a": [float("nan"), float("inf"), None]}},
            {METADATA: '{"a":["NaN","Infinity",null],"b":"AA=="}'},
        ),
        ({METADATA: 5}, {}),
        ({SOURCE: 5, "neatlogs.end_user": {"id": "x"}}, {}),
        ({"quoted": '"neatlogs.end_user.id": "x"', "nested": {ID: "x"}}, None),
    ],
)
def test_root_attributes(given_, left) -> None:
    """On a root, text stays; an int id and a mapping become text; other values of the namespace are left out."""
    before = span({**given_, "other": 1})
    after = only(before)
    if left is None:
        assert after is before
    else:
        assert dict(after.attributes or {}) == {**left, "other": 1}


@pytest.mark.parametrize("parent", [LOCAL, REMOTE])
def test_children_lose_identity(parent) -> None:
    """A child of a local or remote parent loses every key of the namespace, and nothing else."""
    after = only(span({ID: "mallory", "neatlogs.end_user": 1, "neatlogs.end_users": 2, "x": 1}, parent=parent))
    assert dict(after.attributes or {}) == {"neatlogs.end_users": 2, "x": 1}


def test_a_parent_of_zeros_is_none() -> None:
    """A parent span id of zeros means a root."""
    root = span({ID: "alice"}, parent=SpanContext(1, 0, is_remote=True))
    assert only(root) is root


def test_events_links_and_scopes_lose_identity() -> None:
    """Events, links and the instrumentation scope lose identity, on roots too; names, times and counts stay."""
    keep = Event("keep", {"x": 1}, 5)
    before = span(
        {ID: "alice"},
        events=[Event("hit", {ID: "mallory", "x": 1}, 7), keep],
        links=[Link(LOCAL, {METADATA: "{}", "y": 2}), Link(REMOTE, {})],
        scope={ID: "mallory", "z": 3},
    )
    after = only(before)
    assert [(e.name, dict(e.attributes or {}), e.timestamp) for e in after.events] == [
        ("hit", {"x": 1}, 7),
        ("keep", {"x": 1}, 5),
    ]
    assert after.events[1] is keep
    assert [(link.context, dict(link.attributes or {})) for link in after.links] == [(LOCAL, {"y": 2}), (REMOTE, {})]
    scope = after.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.version, dict(scope.attributes or {})) == ("lib", "1", {"z": 3})
    assert (after.attributes or {})[ID] == "alice"


DEFAULT = {ID: "u0", METADATA: '{"plan":"pro"}'}


@pytest.mark.parametrize(
    ("on_root", "left"),
    [
        ({}, {**DEFAULT, SOURCE: "resource"}),
        ({SOURCE: "init"}, {**DEFAULT, SOURCE: "init"}),
        ({ID: "alice"}, {ID: "alice"}),
        ({ID: " "}, {**DEFAULT, SOURCE: "resource"}),
        ({METADATA: '{"x":1}'}, {ID: "u0", METADATA: '{"x":1}', SOURCE: "resource"}),
        ({ID: False}, {}),
    ],
)
def test_a_default_on_the_resource_moves_to_roots(on_root, left) -> None:
    """The resource's default leaves it and lands on roots without an id; an id of no use there keeps it away."""
    after = only(span(on_root, resource={**DEFAULT, "service.name": "s"}))
    assert dict(after.resource.attributes) == {"service.name": "s"}
    assert dict(after.attributes or {}) == left


@pytest.mark.parametrize(
    ("default", "left"),
    [
        ({ID: 7}, {ID: "7", SOURCE: "resource"}),
        ({METADATA: "{}"}, {METADATA: "{}", SOURCE: "resource"}),
        ({ID: " ", METADATA: "{}"}, {METADATA: "{}", SOURCE: "resource"}),
        ({ID: True, METADATA: "{}"}, {}),
        ({SOURCE: "init"}, {}),
    ],
)
def test_defaults_of_several_shapes(default, left) -> None:
    """A default may be an int id or metadata alone; an id of no use leaves nobody."""
    assert dict(only(span(resource=default)).attributes or {}) == left


def test_a_default_of_metadata_alone_goes_where_there_is_neither() -> None:
    """A default with metadata alone lands only on roots that have neither id nor metadata."""
    roots = [span({ID: "a"}, resource={METADATA: "{}"}), span({METADATA: "[]"}, resource={METADATA: "{}"})]
    assert [dict(root.attributes or {}) for root in exported(*roots)] == [{ID: "a"}, {METADATA: "[]"}]


def test_children_of_a_resource_with_a_default() -> None:
    """A child only loses the default from its resource."""
    after = only(span({"x": 1}, parent=LOCAL, resource=DEFAULT))
    assert dict(after.attributes or {}) == {"x": 1}
    assert dict(after.resource.attributes) == {}


@pytest.mark.parametrize(
    ("services", "left"), [(None, {ID: "alice"}), (["shop"], {ID: "alice"}), (["other"], {}), ([], {})]
)
def test_entry_spans(services, left) -> None:
    """With roots="entry" an entry span of a listed service (or of any) is treated as a root; local children never."""
    entry = span({ID: "alice"}, parent=REMOTE, resource={"service.name": "shop"})
    child = span({ID: "mallory"}, parent=LOCAL, resource={"service.name": "shop"})
    after = exported(entry, child, roots="entry", entry_services=services)
    assert [dict(one.attributes or {}) for one in after] == [left, {}]


def test_an_unknown_setting() -> None:
    """A setting that means nothing is an error where it is made."""
    with pytest.raises(ValueError, match="roots"):
        neatlogs.EndUserSpanExporter(InMemorySpanExporter(), roots="all")
    with pytest.raises(ValueError, match="roots"):
        neatlogs.EndUserSpanProcessor(roots="all")


def test_overrides_are_counted_and_said_once_per_place(said) -> None:
    """Each ignored override is counted; each place is said once, with the span's name and never the value."""
    for _ in range(3):
        exported(span({ID: "s3cret"}, parent=LOCAL), span(events=[Event("e", {ID: "s3cret"})]))
    assert _warnings.count("override_ignored") == 6
    assert len(said.messages) == 2
    assert all("'a span'" in message and "s3cret" not in message for message in said.messages)


def test_other_exporters_see_what_they_saw() -> None:
    """Spans are not changed for other exporters, and keep their counts of what the SDK dropped."""
    plain, inner = InMemorySpanExporter(), InMemorySpanExporter()
    provider = TracerProvider(
        resource=Resource(DEFAULT),
        shutdown_on_exit=False,
        span_limits=SpanLimits(max_span_attributes=2, max_events=1, max_links=0),
    )
    provider.add_span_processor(SimpleSpanProcessor(plain))
    provider.add_span_processor(SimpleSpanProcessor(neatlogs.EndUserSpanExporter(inner)))
    with provider.get_tracer("t").start_as_current_span("root", links=[Link(LOCAL)]) as root:
        for at in range(3):
            root.set_attribute(f"a{at}", at)
            root.add_event(f"e{at}", {ID: "mallory"})
    (seen,), (enforced,) = plain.get_finished_spans(), inner.get_finished_spans()
    assert dict(seen.resource.attributes) == DEFAULT
    assert (seen.events[0].attributes or {})[ID] == "mallory"
    for name in (
        "dropped_attributes",
        "dropped_events",
        "dropped_links",
        "name",
        "context",
        "start_time",
        "end_time",
        "kind",
        "status",
    ):
        assert getattr(enforced, name) == getattr(seen, name)
    assert (enforced.attributes or {})[ID] == "u0"
    assert json.loads(enforced.to_json())["attributes"][ID] == "u0"


def test_it_is_an_exporter() -> None:
    """Results, flushing and shutting down are the wrapped exporter's."""
    calls: list[object] = []

    class Inner(SpanExporter):
        def export(self, spans):
            return SpanExportResult.FAILURE

        def force_flush(self, timeout_millis=30000):
            calls.append(timeout_millis)
            return False

        def shutdown(self):
            calls.append("shutdown")

    exporter = neatlogs.EndUserSpanExporter(Inner())
    assert exporter.export([span()]) is SpanExportResult.FAILURE
    assert exporter.force_flush(5) is False
    exporter.shutdown()
    assert calls == [5, "shutdown"]


values = st.one_of(
    st.text(max_size=5),
    st.integers(-5, 5),
    st.booleans(),
    st.floats(),
    st.binary(max_size=3),
    st.none(),
    st.lists(st.text(max_size=2), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)
attribute_keys = st.sampled_from(
    [ID, METADATA, SOURCE, "neatlogs.end_user", "neatlogs.end_user.x", "neatlogs.end_users", "x"]
)
attributes = st.dictionaries(attribute_keys, values, max_size=4)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(attributes, st.sampled_from([None, LOCAL, REMOTE]), attributes, attributes), max_size=4),
    st.sampled_from(["trace", "entry"]),
)
def test_laws(shapes, roots) -> None:
    """Enforcing twice equals enforcing once; no child, event or resource keeps identity; all else stays."""
    logging.getLogger("neatlogs_otel").disabled = True
    try:
        before = [span(a, parent=p, events=[Event("e", e)], resource=r) for a, p, e, r in shapes]
        once = exported(*before, roots=roots)
        twice = exported(*once, roots=roots)
    finally:
        logging.getLogger("neatlogs_otel").disabled = False
    assert all(first is second for first, second in zip(once, twice, strict=True))
    for old, new in zip(before, once, strict=True):
        assert not any(map(keys.is_identity_key, new.resource.attributes))
        assert not any(map(keys.is_identity_key, new.events[0].attributes or {}))
        mine = {key: value for key, value in (new.attributes or {}).items() if keys.is_identity_key(key)}
        if old.parent is not None and (roots == "trace" or old.parent is LOCAL):
            assert mine == {}
        assert all(isinstance(value, str) for value in mine.values())
        assert {k: repr(v) for k, v in (old.attributes or {}).items() if not keys.is_identity_key(k)} == {
            k: repr(v) for k, v in (new.attributes or {}).items() if not keys.is_identity_key(k)
        }


def test_behind_a_real_provider() -> None:
    """On the way from a provider, an override that any library sets on a child is gone."""
    inner = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(neatlogs.EndUserSpanExporter(inner)))
    tracer = provider.get_tracer("lib", attributes={ID: "mallory"})
    with tracer.start_as_current_span("root", attributes={ID: "alice"}):
        tracer.start_span("child", attributes={ID: "mallory"}).end()
    tracer.start_span("entry", context=remote_parent(), attributes={ID: "mallory"}).end()
    found = {one.name: (one.attributes or {}).get(ID) for one in inner.get_finished_spans()}
    assert found == {"root": "alice", "child": None, "entry": None}
