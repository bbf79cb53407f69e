"""What `enforce_traces` promises beyond its results: which bytes stay, what is reported, how much it can take."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.policy import MAX_REPORTED_OVERRIDES, EndUserPolicy, Place, is_entry_span, is_root_span
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.core.wire import MAX_GROWTH
from neatlogs_processor.errors import MalformedOtlpError, RequestTooLargeError
from support.wire_forms import LEN, field, read_fields, requests

STRICT = EndUserPolicy()
ID = "neatlogs.end_user.id"
PARENT = b"\x11" * 8


def text(key: str, value: str) -> KeyValue:
    """An attribute with a string value."""
    return KeyValue(key=key, value=AnyValue(string_value=value))


def request_of(*spans: Span, service: str = "chat") -> bytes:
    """A request of these spans."""
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.attributes.append(text("service.name", service))
    resource_spans.scope_spans.add().spans.extend(spans)
    return request.SerializeToString()


def raw_spans(body: bytes) -> list[bytes]:
    """The bytes of each span, in order."""
    out = []
    for number, wire_type, resource_spans in read_fields(body):
        if (number, wire_type) == (1, LEN):
            for inner, inner_type, scope_spans in read_fields(resource_spans):
                if (inner, inner_type) == (2, LEN):
                    out += [span for at, kind, span in read_fields(scope_spans) if (at, kind) == (2, LEN)]
    return out


@settings(max_examples=500, deadline=None)
@given(requests())
def test_spans_without_identity_keep_their_bytes(body: bytes) -> None:
    """A span that holds no identity and takes none leaves byte for byte as it came, whatever happens around it."""
    enforced = enforce_traces(body, STRICT)
    before, after = raw_spans(body), raw_spans(enforced.body)
    assert len(before) == len(after)
    if not enforced.counts.defaults_moved:
        for came, left in zip(before, after, strict=True):
            if b"neatlogs.end_user" not in came:
                assert came == left


def test_a_span_is_cut_and_not_rewritten() -> None:
    """What leaves an edited span is what came, less the attributes that had to go."""
    keep = [text(f"key.{number}", "value") for number in range(5)]
    span = Span(name="llm", parent_span_id=PARENT, attributes=[*keep[:2], text(ID, "u_666"), *keep[2:]])
    unusual = field(99, LEN, b"tail") + field(9, LEN, keep[0].SerializeToString(), length_padding=2)
    body = field(1, LEN, field(2, LEN, field(2, LEN, span.SerializeToString() + unusual)))
    override = field(9, LEN, text(ID, "u_666").SerializeToString())
    (left,) = raw_spans(enforce_traces(body, STRICT).body)
    assert left == (span.SerializeToString() + unusual).replace(override, b"")


def test_overrides_are_described_without_values() -> None:
    """An ignored override says where it stood and under which key, and never what it said."""
    span = Span(trace_id=b"t" * 16, span_id=b"s" * 8, parent_span_id=PARENT, name="llm", attributes=[text(ID, "u_666")])
    enforced = enforce_traces(request_of(span), STRICT)
    (override,) = enforced.overrides
    assert override == (b"t" * 16, b"s" * 8, "chat", "llm", Place.CHILD, ID)
    assert "u_666" not in repr(override)
    assert enforced.counts.overrides_total == 1


def test_long_spans_are_hopped_and_counted() -> None:
    """Children and roots of every size are counted, whether or not one among them holds an override."""
    prompts = ["p" * size for size in (1, 300, 20_000)]
    ids = {"trace_id": b"t" * 16, "span_id": b"s" * 8}
    spans = [Span(**ids, parent_span_id=PARENT, attributes=[text("input.value", prompt)]) for prompt in prompts]
    spans += [Span(**ids, attributes=[text("input.value", prompt)]) for prompt in prompts]
    spans.append(Span(**ids, parent_span_id=PARENT, attributes=[text(ID, "u_666")]))
    counts = enforce_traces(request_of(*spans, *spans), STRICT).counts
    assert (counts.spans, counts.roots, counts.overrides[Place.CHILD]) == (14, 6, 2)


def test_a_name_that_quotes_the_key_is_a_name() -> None:
    """The key in a span's name, its last field, is no identity."""
    span = field(4, LEN, PARENT) + field(5, LEN, b"neatlogs.end_user.id")
    body = field(1, LEN, field(2, LEN, field(2, LEN, span) + field(2, LEN, span)))
    assert enforce_traces(body, STRICT).body is body


@pytest.mark.parametrize("order", ["usual", "flags first", "name last", "long name", "no ids"])
def test_spans_are_described_in_every_byte_order(order: str) -> None:
    """Ids and name are found wherever they stand in the span."""
    name = "n" * 200 if order == "long name" else "llm"
    ids = field(1, LEN, b"t" * 16) + field(2, LEN, b"s" * 8) + field(4, LEN, PARENT)
    override = field(9, LEN, text(ID, "u_666").SerializeToString())
    flags = b"\x85\x01\x01\x01\x00\x00"
    named = field(5, LEN, name.encode())
    span = {
        "usual": ids + named + override,
        "flags first": ids + flags + named + override,
        "name last": override + ids + named,
        "long name": ids + named + override,
        "no ids": field(4, LEN, PARENT) + named + override,
    }[order]
    body = field(1, LEN, field(2, LEN, field(2, LEN, span)))
    (described,) = enforce_traces(body, STRICT).overrides
    without_ids = order == "no ids"
    expected = (b"", b"") if without_ids else (b"t" * 16, b"s" * 8)
    assert (described.trace_id, described.span_id, described.span_name, described.service) == (*expected, name, "")


def test_a_span_that_ends_with_its_ids_is_described() -> None:
    """A child without a name, at the very end of a request, is described without one."""
    override = field(11, LEN, field(3, LEN, text(ID, "u_666").SerializeToString()))
    ids = field(1, LEN, b"t" * 16) + field(2, LEN, b"s" * 8)
    body = field(1, LEN, field(2, LEN, field(2, LEN, override + ids)))
    (described,) = enforce_traces(body, STRICT).overrides
    assert (described.place, described.trace_id, described.span_name) == (Place.EVENT, b"t" * 16, "")


def test_descriptions_are_bounded() -> None:
    """However many overrides a request holds, a bounded number is described; the others are counted."""
    spans = [
        Span(name="llm", parent_span_id=PARENT, attributes=[text(ID, "a"), text("neatlogs.end_user.source", "b")])
        for _ in range(MAX_REPORTED_OVERRIDES)
    ]
    enforced = enforce_traces(request_of(*spans), STRICT)
    assert len(enforced.overrides) == MAX_REPORTED_OVERRIDES
    assert enforced.overrides_not_reported == MAX_REPORTED_OVERRIDES
    assert enforced.counts.overrides[Place.CHILD] == 2 * MAX_REPORTED_OVERRIDES


def test_a_request_that_needs_nothing_is_the_same_object() -> None:
    """Without an edit nothing is copied."""
    body = request_of(Span(name="chat", attributes=[text(ID, "u_812")]), Span(name="llm", parent_span_id=PARENT))
    assert enforce_traces(body, STRICT).body is body


@pytest.mark.parametrize(
    ("attribute", "about"),
    [
        (field(1, LEN, b"neatlogs.end_user.id") + field(2, LEN, field(1, LEN, b"\xff\xfe")), "an id that is no UTF-8"),
        (field(1, LEN, b"neatlogs.end_user.id") * 2 + field(2, LEN, b"\xff"), "an ambiguous attribute"),
        (field(1, LEN, b"neatlogs.end_user.id") + field(2, LEN, b"\x0a\x05ab"), "a value cut off"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unreadable_identity_on_a_root_is_refused(attribute: bytes, about: str) -> None:
    """Identity that the official reader cannot read is an error, and nothing of the request goes on."""
    body = field(1, LEN, field(2, LEN, field(2, LEN, field(9, LEN, attribute))))
    with pytest.raises(MalformedOtlpError):
        enforce_traces(body, STRICT)


def test_an_ambiguous_span_that_cannot_be_read_is_refused() -> None:
    """Where only the official reader could tell what a span means and it cannot read it, the request is refused."""
    override = field(9, LEN, text(ID, "u_666").SerializeToString())
    span = field(4, LEN, PARENT) * 2 + field(5, LEN, b"\xff") + override
    with pytest.raises(MalformedOtlpError, match="Span"):
        enforce_traces(field(1, LEN, field(2, LEN, field(2, LEN, span))), STRICT)


def test_a_group_in_an_identity_value_is_refused_whatever_the_value_is() -> None:
    """A group beside the int of an id, or in an attribute that is ambiguous too, is refused as beside a string."""
    group = field(15, 3, b"") + field(15, 4, b"")
    key = field(1, LEN, ID.encode())
    for value in (field(3, 0, b"\x07"), field(1, LEN, b"u_812")):
        for before in (b"", key):
            attribute = before + key + field(2, LEN, value + group)
            span = field(9, LEN, attribute)
            body = field(1, LEN, field(2, LEN, field(2, LEN, span)))
            with pytest.raises(MalformedOtlpError, match="group"):
                enforce_traces(body, STRICT)


def test_a_group_beside_spans_that_take_a_default_is_refused() -> None:
    """A scope that a default lands in is judged as one that holds identity: at the first time, not at the second."""
    resource = field(1, LEN, field(1, LEN, text(ID, "u_812").SerializeToString()))
    group = field(15, 3, b"") + field(15, 4, b"")
    with pytest.raises(MalformedOtlpError, match="group"):
        enforce_traces(field(1, LEN, resource + field(2, LEN, group + field(2, LEN, b""))), STRICT)


def test_a_default_that_lands_beside_a_field_of_a_wrong_wire_type_lands_for_good() -> None:
    """A root whose known field has a wrong wire type takes its resource's default, and enforcing again is nothing."""
    wrong = field(12, LEN, ID.encode())
    resource = field(1, LEN, field(1, LEN, text(ID, "u_812").SerializeToString()))
    span = field(1, LEN, b"\xab" * 16) + field(2, LEN, b"\xcd" * 8) + wrong + field(5, LEN, b"chat")
    once = enforce_traces(field(1, LEN, resource + field(2, LEN, field(2, LEN, span))), STRICT)
    assert once.counts.roots_with_identity == 1
    assert enforce_traces(once.body, STRICT).body is once.body


def test_metadata_nested_deeper_than_readers_go_is_refused() -> None:
    """A map that the official reader gives up on is an error, not a crash."""
    value = AnyValue(string_value="x").SerializeToString()
    for _ in range(200):
        value = field(6, LEN, field(1, LEN, field(1, LEN, b"k") + field(2, LEN, value)))
    attribute = field(1, LEN, b"neatlogs.end_user.metadata") + field(2, LEN, value)
    body = field(1, LEN, field(2, LEN, field(2, LEN, field(9, LEN, attribute))))
    with pytest.raises(MalformedOtlpError):
        enforce_traces(body, STRICT)


def test_of_two_members_of_a_map_the_first_stays() -> None:
    """Metadata that names a key twice keeps the first value, as a root keeps its first attribute."""
    members = [text("plan", "pro"), text("plan", "free")]
    metadata = KeyValue(key="neatlogs.end_user.metadata", value=AnyValue(kvlist_value=KeyValueList(values=members)))
    left = ExportTraceServiceRequest.FromString(enforce_traces(request_of(Span(attributes=[metadata])), STRICT).body)
    (attribute,) = left.resource_spans[0].scope_spans[0].spans[0].attributes
    assert attribute.value.string_value == '{"plan":"pro"}'


@pytest.mark.parametrize(
    "resource",
    [
        field(1, LEN, b"\x0a\x0cservice.name\x12\x7f"),
        field(1, LEN, KeyValue(key="service.name").SerializeToString()),
        field(1, LEN, text("other", "service.name").SerializeToString()),
        b"",
    ],
    ids=["unreadable", "no value", "only quoted", "absent"],
)
def test_a_service_without_a_readable_name_is_nameless(resource: bytes) -> None:
    """A resource is not refused for its name: without identity nobody asks it to be readable."""
    span = Span(name="llm", parent_span_id=PARENT, attributes=[text(ID, "u_666")]).SerializeToString()
    body = field(1, LEN, field(1, LEN, resource) + field(2, LEN, field(2, LEN, span)))
    (override,) = enforce_traces(body, STRICT).overrides
    assert override.service == ""


def test_large_batches_and_large_attributes() -> None:
    """Two thousand spans, one of them with an attribute of a megabyte that quotes the key all over, are enforced."""
    spans = [Span(name="llm", parent_span_id=PARENT, attributes=[text(ID, "u_666")]) for _ in range(2000)]
    spans[1000].attributes.append(text("input.value", f"{ID} " * 50_000))
    enforced = enforce_traces(request_of(*spans), STRICT)
    assert enforced.counts.spans == enforced.counts.overrides[Place.CHILD] == 2000
    left = ExportTraceServiceRequest.FromString(enforced.body).resource_spans[0].scope_spans[0].spans
    assert [len(span.attributes) for span in left if span.attributes] == [1]


def test_memory_is_bounded_by_the_request() -> None:
    """A request full of overrides takes a bounded multiple of its size."""
    body = request_of(*(Span(name="x", parent_span_id=PARENT, attributes=[text(ID, "u")]) for _ in range(20_000)))
    tracemalloc.start()
    enforce_traces(body, STRICT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * len(body)


@pytest.mark.parametrize(
    ("parent", "flags", "root", "entry"),
    [
        (b"", 0x301, True, False),
        (bytes(8), 0x301, True, False),
        (bytes(3), 0, True, False),
        (PARENT, 0x301, False, True),
        (PARENT, 0x101, False, False),
        (PARENT, 0x201, False, False),
        (b"\x01", 0x300, False, True),
    ],
)
def test_who_is_a_root_and_who_an_entry_span(parent: bytes, flags: int, root: bool, entry: bool) -> None:
    """A root's parent is empty or zero; an entry span is a child whose parent is known to be remote."""
    assert is_root_span(parent) is root
    assert is_entry_span(parent, flags) is entry


def test_roots_are_counted_in_every_byte_order() -> None:
    """A root is counted as one whether or not it holds identity, and wherever a parent id may stand."""
    ids = field(1, LEN, b"t" * 16) + field(2, LEN, b"s" * 8)
    shapes = [
        (ids + field(5, LEN, b"root"), True),
        (ids, True),
        (field(5, LEN, b"bare"), True),
        (b"", True),
        (ids + field(4, LEN, bytes(8)), True),
        (ids + field(4, LEN, b"\0\0\0\0\0\0\0\x01"), False),
        (ids + field(5, LEN, b"late") + field(4, LEN, PARENT), False),
        (ids + field(3, LEN, b"vendor=1") + field(4, LEN, PARENT), False),
        (field(4, LEN, PARENT), False),
        (ids + field(4, LEN, PARENT, tag_padding=1), False),
    ]
    for span, root in shapes:
        body = field(1, LEN, field(2, LEN, field(2, LEN, span)))
        counts = enforce_traces(body, STRICT).counts
        assert (counts.spans, counts.roots) == (1, int(root)), span


def test_a_default_that_would_make_a_request_very_large_is_refused() -> None:
    """A long default and many roots that take it are small as they come, and must not be as large as both together."""
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.attributes.append(text(ID, "u" * 2**20))
    spans = resource_spans.scope_spans.add().spans
    spans.extend([Span()] * (MAX_GROWTH // 2**20))
    assert len(enforce_traces(request.SerializeToString(), STRICT).body) > MAX_GROWTH
    spans.extend([Span()] * 2)
    with pytest.raises(RequestTooLargeError, match="larger than it came"):
        enforce_traces(request.SerializeToString(), STRICT)
