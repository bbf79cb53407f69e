"""What children inherit from their root."""

from __future__ import annotations

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.sought import Sought
from neatlogs_processor.core.span_heads import CHILD, ENTRY, ROOT, Head
from neatlogs_processor.core.stamping import INHERITED, Owner, Stamp, read_owner
from support.spans import TRACE, attributes, child, root
from support.wire_forms import LEN, field

WHOLE = {
    "neatlogs.end_user.id": "u_1",
    "neatlogs.end_user.metadata": '{"plan":"pro"}',
    "neatlogs.session.id": "s_1",
}
ID = {"neatlogs.end_user.id": "u_1"}


def owner_of(span: Span, rank: int = ROOT, keys: Sought = INHERITED) -> Owner:
    """What a span gives to the others."""
    head = Head(TRACE, rank, span.start_time_unix_nano, span.span_id)
    return read_owner(head, span.SerializeToString(), keys)


def stamped(owner: Span, span: Span, keys: Sought = INHERITED) -> dict[str, str]:
    """The attributes of a span after it has inherited."""
    result = Stamp(owner_of(owner, keys=keys).attributes).on(span.SerializeToString())
    return {one.key: one.value.string_value for one in Span.FromString(result).attributes}


def test_children_inherit_id_metadata_and_session_but_not_the_source() -> None:
    """Where the identity came from is the root's alone: a child's came from its root."""
    owner = root(neatlogs__end_user__source="trace", other="x", **{key.replace(".", "__"): WHOLE[key] for key in WHOLE})
    assert stamped(owner, child()) == WHOLE


def test_a_span_keeps_its_bytes_in_front_of_what_it_inherits() -> None:
    """Attributes are added behind the last field; nothing else of the span changes."""
    owner = owner_of(root(neatlogs__end_user__id="u_1"))
    span = child("x", http__method="GET").SerializeToString()
    assert Stamp(owner.attributes).on(span) == span + owner.attributes


def test_an_attribute_that_a_child_has_is_not_added_again() -> None:
    """A session that a child names itself stays, and it is stamped with the others."""
    owner = root(neatlogs__end_user__id="u_1", neatlogs__session__id="s_1")
    assert stamped(owner, child(neatlogs__session__id="own")) == {"neatlogs.session.id": "own", **ID}


def test_a_span_that_has_all_attributes_is_the_same_object() -> None:
    """Stamping twice is stamping once."""
    stamp = Stamp(owner_of(Span(attributes=attributes(WHOLE))).attributes)
    once = stamp.on(child().SerializeToString())
    assert stamp.on(once) is once


def test_a_key_that_is_only_quoted_does_not_count() -> None:
    """A prompt that quotes the key does not keep its span from inheriting."""
    assert stamped(root(neatlogs__end_user__id="u_1"), child(prompt="neatlogs.end_user.id"))["neatlogs.end_user.id"]


@pytest.mark.parametrize(
    "owner",
    [
        root(),
        root(neatlogs__end_user__id="  "),
        root(neatlogs__end_user__metadata="{}"),
        root(neatlogs__session__id="s_1"),
        root(prompt="neatlogs.end_user.id"),
    ],
    ids=["nothing", "blank", "metadata alone", "session alone", "quoted"],
)
def test_a_root_without_an_end_user_gives_nothing(owner: Span) -> None:
    """Id and metadata are one unit, and a session without an end user is left where it is."""
    assert owner_of(owner).attributes == b""


def test_other_keys_are_inherited_where_they_are_named() -> None:
    """What else identifies the end user on a root, as an attribute of any type, is inherited too."""
    owner = Span(attributes=[*attributes(ID), KeyValue(key="user.id", value=AnyValue(int_value=7))])
    given = Span.FromString(Stamp(owner_of(owner, keys=INHERITED | Sought((b"user.id",))).attributes).on(b""))
    assert [(one.key, one.value.int_value) for one in given.attributes][1] == ("user.id", 7)


def test_of_attributes_that_stand_twice_the_first_is_inherited() -> None:
    """As everywhere, the first of duplicates counts."""
    owner = root(neatlogs__end_user__id="u_1", neatlogs__session__id="first")
    owner.attributes.extend(attributes({"neatlogs.session.id": "second"}))
    assert stamped(owner, child())["neatlogs.session.id"] == "first"


def test_attributes_that_nobody_can_read_are_passed_over() -> None:
    """A broken attribute beside the identity, which nobody asked to be readable, costs nothing, whatever it quotes."""
    broken = field(9, LEN, b"\x0a\x7fneatlogs.session.id")
    span = broken + root(other="x", neatlogs__end_user__id="u_1").SerializeToString()
    owner = read_owner(Head(TRACE, ROOT, 1, b""), span)
    given = Span.FromString(Stamp(owner.attributes).on(b"")).attributes
    assert {one.key: one.value.string_value for one in given} == ID


def test_an_id_that_nobody_can_read_is_nobody() -> None:
    """Where the value is no value, there is no end user to inherit."""
    span = field(9, LEN, field(1, LEN, b"neatlogs.end_user.id") + field(2, LEN, b"\x0a\x7f"))
    assert read_owner(Head(TRACE, ROOT, 1, b""), span).attributes == b""


def test_an_attribute_that_readers_disagree_about_is_inherited_plainly() -> None:
    """A key that stands twice is inherited as what the official reader makes of it."""
    value = field(2, LEN, field(1, LEN, b"s_1"))
    doubled = field(9, LEN, field(1, LEN, b"other") + value + field(1, LEN, b"neatlogs.session.id"))
    span = root(neatlogs__end_user__id="u_1").SerializeToString() + doubled
    given = Span.FromString(Stamp(read_owner(Head(TRACE, ROOT, 1, b""), span).attributes).on(b"")).attributes
    assert {one.key: one.value.string_value for one in given} == {**ID, "neatlogs.session.id": "s_1"}


def test_of_several_owners_the_smallest_speaks_for_the_trace() -> None:
    """Entry spans come before roots, then the earliest start counts, then the smaller span id; no start is the last."""

    def order(rank: int, start: int, span_id: bytes) -> bytes:
        return owner_of(Span(start_time_unix_nano=start, span_id=span_id), rank).order

    ordered = [
        order(ENTRY, 9, b"\x09"),
        order(ROOT, 1, b"\x02"),
        order(ROOT, 1, b"\x03"),
        order(ROOT, 2, b"\x01"),
        order(ROOT, 0, b"\x01"),
    ]
    assert sorted(ordered) == ordered
    assert CHILD > ROOT > ENTRY


def test_the_rule_takes_off_what_children_have_inherited() -> None:
    """A processor behind this one removes identity from children again: inheriting is for the last hop."""
    from neatlogs_processor.core.traces import enforce_traces
    from support.spans import request

    owner = owner_of(root(neatlogs__end_user__id="u_1"))
    body = request(Span.FromString(Stamp(owner.attributes).on(child().SerializeToString())))
    assert enforce_traces(body, EndUserPolicy()).counts.overrides_total == 1


def test_a_span_id_of_any_length_takes_little_memory() -> None:
    """Owners are remembered by the thousands, so of an id that is none only the beginning decides."""
    head = Head(TRACE, ROOT, 1, b"\x07" * 1_000_000)
    assert len(read_owner(head, b"").order) < 100
    assert read_owner(head, b"").order > read_owner(Head(TRACE, ROOT, 1, b"\x06" * 8), b"").order
