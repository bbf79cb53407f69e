"""What editing owner spans promises beyond its results: which bytes stay, what is written anew, what is refused."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.owner_spans import Changes, Edited, SpanAttributes, edit_owners
from neatlogs_processor.core.policy import MAX_REPORTED_OVERRIDES, EndUserPolicy, Place
from neatlogs_processor.core.sought import Sought
from neatlogs_processor.errors import MalformedOtlpError
from support.spans import attributes, child, request, root
from support.wire_forms import FIXED64, GROUP, GROUP_END, LEN, VARINT, field, read_fields

STRICT = EndUserPolicy()
ENTRY = EndUserPolicy("entry", frozenset({"shop"}))
USER = Sought((b"user.id",))
PARENT = b"\x01" * 8


def edit(
    body: bytes,
    put: Mapping[bytes, str] | None = None,
    *,
    removed: tuple[bytes, ...] = (),
    strip: bool = False,
    policy: EndUserPolicy = STRICT,
) -> Edited:
    """Put texts on every owner with a `user.id`, and strip the key from others if so."""
    changes = None if put is None else Changes(put, frozenset(removed))
    return edit_owners(body, policy, seek=USER, edit=lambda _: changes, strip=USER if strip else None)


def attribute(key: bytes = b"user.id", value: bytes = b"u_1", *, padding: int = 0) -> bytes:
    """An attribute field of a span."""
    inner = field(1, LEN, key) + field(2, LEN, field(1, LEN, value, length_padding=padding), length_padding=padding)
    return field(9, LEN, inner, length_padding=padding)


def body_of(*spans: bytes, padding: int = 0) -> bytes:
    """A request of spans in one scope."""
    inside = b"".join(field(2, LEN, span, length_padding=padding) for span in spans)
    return field(1, LEN, field(2, LEN, inside, length_padding=padding), length_padding=padding)


def test_only_spans_with_a_sought_key_are_given() -> None:
    """The stage sees owners that have an attribute under a sought key, and of their attributes those alone."""
    seen: list[list[bytes]] = []
    body = request(root("a", user__id="u", x="user.id"), root("b", x="user.id"), child("c", user__id="u"), root("d"))
    edit_owners(body, STRICT, seek=USER, edit=lambda found: seen.append(list(found)))
    assert seen == [[b"user.id"]]


def test_a_needle_that_holds_another_is_not_searched_for() -> None:
    """Keys that contain a shorter one are found with it, and still told apart."""
    sought = Sought((b"enduser.id", b"user.id", b"langfuse.user.id"), (b"user.",))
    assert sought.needles == (b"user.",)
    assert all(key in sought for key in (b"user.id", b"user.name", b"enduser.id"))
    assert b"enduser.ids" not in sought
    assert not Sought()


@pytest.mark.parametrize("padding", [0, 3])
def test_a_new_attribute_stands_behind_all_others(padding: int) -> None:
    """Bytes in front of it stay as they came, padded lengths and unknown fields included."""
    span = field(5, LEN, b"root") + attribute(padding=padding) + field(99, LEN, b"unknown")
    edited = edit(body_of(span, padding=padding), {b"session.id": "s"})
    ((_, _, resource_spans),) = read_fields(edited.body)
    ((_, _, scope_spans),) = read_fields(resource_spans)
    ((_, _, left),) = read_fields(scope_spans)
    assert left == span + attribute(b"session.id", b"s")
    assert edited.changed == 1


def test_a_text_replaces_the_first_of_its_key_where_it_stands() -> None:
    """Another text takes the place of the first attribute with that key; others with that key go."""
    span = attribute(value=b"a") + field(5, LEN, b"root") + attribute(value=b"b") + attribute(b"x", b"y")
    expected = attribute(value=b"new") + field(5, LEN, b"root") + attribute(b"x", b"y")
    assert edit(body_of(span), {b"user.id": "new"}).body == body_of(expected)


@pytest.mark.parametrize("value_first", [False, True])
def test_a_text_that_is_there_already_changes_nothing(value_first: bool) -> None:
    """Whichever way round the attribute was written, and however long its lengths: the same object comes back."""
    key, value = field(1, LEN, b"user.id"), field(2, LEN, field(1, LEN, b"u_1"), length_padding=3)
    inner = value + key if value_first else key + value
    body = body_of(field(9, LEN, inner))
    assert edit(body, {b"user.id": "u_1"}).body is body


def test_keys_are_removed() -> None:
    """Every attribute under a removed key goes."""
    span = attribute(value=b"a") + attribute(b"x", b"y") + attribute(value=b"b")
    assert edit(body_of(span), {}, removed=(b"user.id",)).body == body_of(attribute(b"x", b"y"))


def test_none_leaves_a_span_alone() -> None:
    """Where the stage has nothing to say, nothing is copied or counted."""
    body = request(root(user__id="u"))
    edited = edit(body)
    assert edited.body is body
    assert edited.changed == 0


def test_resources_and_scopes_stay() -> None:
    """The key on a resource or scope, or in an event or a value, is none of this."""
    message = ExportTraceServiceRequest.FromString(request(root(x="user.id"), child(x="user.id"), user__id="operator"))
    scope_spans = message.resource_spans[0].scope_spans[0]
    scope_spans.scope.attributes.extend(attributes({"user.id": "u"}))
    for span in scope_spans.spans:
        span.events.add().attributes.extend(attributes({"user.id": "u"}))
        span.links.add().attributes.extend(attributes({"user.id": "u"}))
    body = message.SerializeToString()
    assert edit(body, {b"user.id": "new"}, strip=True).body is body


def test_who_owns_follows_the_policy() -> None:
    """An entry span of a listed service is an owner, of another one a child, wherever its flags stand."""
    entry = attribute() + field(4, LEN, PARENT) + b"\x85\x01\x00\x03\x00\x00"
    resource = field(1, LEN, field(1, LEN, attributes({"service.name": "shop"})[0].SerializeToString()))
    inside = field(2, LEN, field(2, LEN, entry))
    for body in (field(1, LEN, resource + inside), field(1, LEN, inside + resource)):
        assert edit(body, {b"a": "b"}, strip=True, policy=ENTRY).changed == 1
        assert edit(body, {b"a": "b"}, strip=True).removed == 1
    assert edit(field(1, LEN, inside), {b"a": "b"}, strip=True, policy=ENTRY).removed == 1


def test_unknown_fields_and_quotes_beside_them_are_passed_over() -> None:
    """A span with a field that nobody knows is read as well: its owner, its flags, and keys that are only quoted."""
    quoted = field(9, LEN, field(2, LEN, field(1, LEN, b"user.id")) + field(1, LEN, b"x") + field(7, VARINT, b"\x01"))
    others = field(11, LEN, b"user.id") + field(9, LEN, b"") + field(5, LEN, b"span")
    entry = field(99, VARINT, b"\x01") + field(4, LEN, PARENT) + b"\x85\x01\x00\x03\x00\x00" + quoted + others
    resource = field(1, LEN, field(1, LEN, attributes({"service.name": "shop"})[0].SerializeToString()))
    body = field(1, LEN, resource + field(2, LEN, field(2, LEN, entry + attribute()) + field(2, LEN, entry)))
    assert edit(body, {b"a": "b"}, strip=True, policy=ENTRY).changed == 1
    edited = edit(body, {b"a": "b"}, strip=True)
    assert (edited.changed, edited.removed) == (0, 1)
    outer = field(9, VARINT, b"\x01")
    assert edit(outer + body, strip=True).removed == 1


def test_what_is_stripped_is_described_within_the_bound() -> None:
    """Each attribute that goes is counted; a bounded number is described, never with a value."""
    spans = [child("llm", user__id="u_secret") for _ in range(MAX_REPORTED_OVERRIDES + 6)]
    edited = edit(request(*spans), strip=True)
    assert edited.removed == MAX_REPORTED_OVERRIDES + 6
    assert len(edited.overrides) == MAX_REPORTED_OVERRIDES
    (one,) = set(edited.overrides)
    assert (one.service, one.span_name, one.place, one.key) == ("shop", "llm", Place.CHILD, "user.id")


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(field(4, LEN, b"") + field(4, LEN, PARENT), id="two parents"),
        pytest.param(field(4, LEN, PARENT) + field(6, LEN, b"x"), id="a kind of the wrong type"),
        pytest.param(field(4, LEN, PARENT) + field(9, VARINT, b"\x01"), id="an attribute of the wrong type"),
        pytest.param(field(16, FIXED64, bytes(8)) + field(4, LEN, PARENT), id="flags of the wrong type"),
    ],
)
def test_an_ambiguous_span_is_written_plainly(odd: bytes) -> None:
    """Where readers could disagree about a span that is edited it is written as the official reader sees it."""
    once = edit(body_of(odd + attribute()), strip=True)
    ((_, _, resource_spans),) = read_fields(once.body)
    ((_, _, scope_spans),) = read_fields(resource_spans)
    ((_, _, left),) = read_fields(scope_spans)
    assert left == Span.FromString(odd).SerializeToString()
    assert once.removed == 1
    assert edit(once.body, strip=True).body is once.body


def test_an_ambiguous_root_is_edited_in_its_plain_form() -> None:
    """The last of two parents counts: here there is none, so the span is an owner."""
    span = field(4, LEN, PARENT) + field(4, LEN, bytes(8)) + attribute()
    seek = Sought((b"user.id", b"session.id"))
    changes = Changes({b"session.id": "s"})
    once = edit_owners(body_of(span), STRICT, seek=seek, edit=lambda _: changes)
    ((left,),) = [
        scope_spans.spans
        for one in ExportTraceServiceRequest.FromString(once.body).resource_spans
        for scope_spans in one.scope_spans
    ]
    assert [one.key for one in left.attributes] == ["user.id", "session.id"]
    assert edit_owners(once.body, STRICT, seek=seek, edit=lambda _: changes).body is once.body


def test_an_ambiguous_child_that_nobody_edits_stays() -> None:
    """Nothing is asked of a span from which nothing is removed: not even that it can be read."""
    body = body_of(field(4, LEN, PARENT) * 2 + field(5, LEN, b"\xff") + attribute())
    assert edit(body, {b"a": "b"}).body is body


def test_an_ambiguous_attribute_is_written_plainly() -> None:
    """A key that stands twice is the last one for the official reader, and is left to it alone."""
    twice = field(1, LEN, b"user.id") + field(1, LEN, b"x") + field(2, LEN, field(1, LEN, b"y"))
    other = field(1, LEN, b"x") + field(1, LEN, b"user.id") + field(2, LEN, field(1, LEN, b"y"))
    owner = field(9, LEN, twice) + field(9, LEN, other)
    plain = attribute(b"x", b"y")
    assert edit(body_of(owner), {b"user.id": "u"}).body == body_of(plain + attribute(value=b"u"))
    parent = field(4, LEN, PARENT)
    edited = edit(body_of(parent + owner), strip=True)
    assert (edited.body, edited.removed) == (body_of(parent + plain), 1)


def test_long_keys_and_odd_shapes_are_read() -> None:
    """A key of over 127 bytes, a tag longer than it need be, and an attribute without a value are attributes too."""
    long = b"user.id" + b"x" * 150
    seek = Sought((long, b"user.id"))
    seen: list[list[bytes]] = []
    spans = [
        field(9, LEN, field(1, LEN, long) + field(2, LEN, field(1, LEN, b"u"))),
        field(9, LEN, field(1, LEN, b"user.id")),
        field(9, LEN, field(1, LEN, b"user.id") + field(2, LEN, b""), tag_padding=1),
        field(9, LEN, field(2, LEN, b"", tag_padding=1) + field(1, LEN, b"user.id")),
        field(9, LEN, field(2, LEN, b"") + field(1, LEN, b"user.id") + field(7, VARINT, b"\x01")),
        field(9, LEN, field(1, LEN, b"user.id") + field(2, LEN, b"") + field(7, VARINT, b"\x01")),
    ]
    edit_owners(body_of(*spans), STRICT, seek=seek, edit=lambda found: seen.append(list(found)))
    assert seen == [[long], *[[b"user.id"]] * 5]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(field(1, LEN, b"\x12\x7fuser.id"), id="a scope that ends outside its resource"),
        pytest.param(field(1, LEN, field(2, LEN, b"\x12\x7fuser.id")), id="a span that ends outside its scope"),
        pytest.param(body_of(attribute() + b"\x2a\x05ab"), id="a field that ends outside its span"),
        pytest.param(body_of(attribute() + b"\x2a"), id="a field without a length"),
        pytest.param(body_of(field(9, LEN, b"user.id")), id="an attribute that is none"),
        pytest.param(body_of(field(9, LEN, field(1, LEN, b"user.id") + b"\x12\x7f")), id="a value past its attribute"),
        pytest.param(body_of(field(99, GROUP, b"") + field(99, GROUP_END, b"") + attribute()), id="a group"),
        pytest.param(body_of(field(4, LEN, b"") * 2 + field(5, LEN, b"\xff") + attribute()), id="no UTF-8"),
        pytest.param(body_of(attribute()) + b"\x0a", id="a request that ends in the middle"),
        pytest.param(body_of(attribute() + b"\x85"), id="flags cut off"),
    ],
)
def test_what_cannot_be_read_is_refused(body: bytes) -> None:
    """Framing that does not add up around a key, and a span to edit that nobody can read, are one named error."""
    with pytest.raises(MalformedOtlpError):
        edit(body, {b"a": "b"}, strip=True)


def test_other_fields_of_a_scope_are_passed_over() -> None:
    """A scope, a schema URL, unknown fields and a span with a padded tag may stand between spans."""
    span = attribute()
    between = (
        field(1, LEN, b"") + field(3, LEN, b"https://user.id") + field(7, VARINT, b"\x01") + field(2, VARINT, b"\x02")
    )
    body = field(1, LEN, field(2, LEN, between + field(2, LEN, span, tag_padding=2) + field(2, LEN, span)))
    assert edit(body, {b"session.id": "s"}).changed == 2


def test_a_request_full_of_hits_takes_time_in_proportion() -> None:
    """Half a million occurrences in values and as keys, on owners and children, are dealt with in one pass."""
    span = root(user__id="u", x="user.id " * 100_000)
    span.attributes.extend(attributes({f"user.id.{n}": "user.id" for n in range(50_000)}))
    spans = [span, *(child(user__id="u", x="user.id user.id") for _ in range(50_000))]
    sought = Sought((b"user.id",), (b"user.id.",))
    put = {b"session.id": "s"}
    edited = edit_owners(request(*spans), STRICT, seek=sought, edit=lambda _: Changes(put), strip=sought)
    assert (edited.changed, edited.removed) == (1, 50_000)


IDS = field(1, LEN, b"t" * 16) + field(2, LEN, b"s" * 8)
TIMES = field(6, VARINT, b"\x01") + field(7, FIXED64, bytes(8)) + field(8, FIXED64, bytes(8))


@pytest.mark.parametrize(
    ("span", "owns"),
    [
        pytest.param(IDS + field(5, LEN, b"root") + TIMES + attribute(), True, id="a root"),
        pytest.param(IDS + field(4, LEN, PARENT) + TIMES + attribute(), False, id="a child"),
        pytest.param(IDS + field(4, LEN, bytes(8)) + attribute(), True, id="a parent of zeros"),
        pytest.param(IDS + field(4, LEN, PARENT) + field(4, LEN, b"") + attribute(), True, id="a parent taken back"),
        pytest.param(IDS + field(4, LEN, PARENT) + attribute() + field(9, LEN, b"\x0a\x01\xff"), False, id="no UTF-8"),
        pytest.param(attribute() + field(4, LEN, PARENT) + IDS, False, id="backwards"),
        pytest.param(field(6, VARINT, b"\x80\x01") + attribute(value=b"x" * 20_000), True, id="long"),
        pytest.param(
            TIMES[:2] + field(8, FIXED64, bytes(8)) + field(7, FIXED64, bytes(8)) + attribute(), True, id="end"
        ),
        pytest.param(
            IDS + field(11, LEN, b"") + field(13, LEN, b"") + attribute() + field(10, VARINT, b"\x00"), True, id="js"
        ),
    ],
)
@pytest.mark.parametrize("strip", [False, True])
def test_every_order_of_fields_tells_who_owns(span: bytes, owns: bool, strip: bool) -> None:
    """Wherever ids, times and counts stand, owners are given and, if asked for, others stripped."""
    edited = edit(body_of(span), {b"a": "b"}, strip=strip)
    assert (edited.changed, edited.removed) == (int(owns), int(strip and not owns))


def test_what_cannot_be_read_is_not_known_to_be_a_child() -> None:
    """A child that ends in the middle of a field is refused, not passed over."""
    span = IDS + field(4, LEN, PARENT) + attribute() + b"\x2a\x05ab"
    with pytest.raises(MalformedOtlpError):
        edit(body_of(span), {b"a": "b"})


def test_keys_beside_are_shown_but_open_no_span() -> None:
    """What is wanted beside the sought keys is seen on owners that are opened for those, entry spans too."""
    seen: list[list[bytes]] = []
    entry = IDS + field(4, LEN, PARENT) + b"\x85\x01\x00\x03\x00\x00"
    both = attribute(b"x", b"1") + attribute()
    resource = field(1, LEN, field(1, LEN, attributes({"service.name": "shop"})[0].SerializeToString()))
    spans = [IDS + both, IDS + attribute(b"x", b"2"), entry + both, entry + attribute(b"x", b"3")]
    body = field(1, LEN, resource + field(2, LEN, b"".join(field(2, LEN, span) for span in spans)))
    beside = Sought((b"x",))
    edit_owners(body, ENTRY, seek=USER, edit=lambda found: seen.append(list(found)), beside=beside)
    assert seen == [[b"x", b"user.id"]] * 2


def test_usable_values_are_ids_as_the_rule_has_them() -> None:
    """Text that is not blank and ints are ids; a key that is not there has none."""
    seen: list[tuple[str | None, str | None]] = []

    def look(found: SpanAttributes) -> None:
        seen.append((found.usable(b"user.id"), found.usable(b"other")))

    edit_owners(request(root(user__id=" "), root(user__id="u")), STRICT, seek=USER, edit=look)
    assert seen == [(None, None), ("u", None)]
