"""Spans that carry identity by the batch: proven regular together, or walked one by one, with the same result."""

from __future__ import annotations

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from neatlogs_processor.core.policy import MAX_REPORTED_OVERRIDES, EndUserPolicy, Place
from neatlogs_processor.core.regular_spans import AT_ONCE
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.errors import MalformedOtlpError
from support.differential import check_both
from support.wire_forms import FIXED32, FIXED64, GROUP, GROUP_END, LEN, VARINT, field, varint

STRICT = EndUserPolicy()
PARENT = b"\x11" * 8
ID = "neatlogs.end_user.id"


def attribute(key: str, value: str) -> bytes:
    """An attribute field of a span."""
    return field(9, LEN, KeyValue(key=key, value=AnyValue(string_value=value)).SerializeToString())


def body_of(*spans: bytes, resource: bytes = b"", after: bytes = b"") -> bytes:
    """A request of these spans; `resource` stands in front of them, `after` behind them."""
    scope_spans = field(2, LEN, b"".join(field(2, LEN, span) for span in spans))
    return field(1, LEN, resource + scope_spans + after)


BEGIN = field(1, LEN, b"t" * 16) + field(2, LEN, b"s" * 8) + field(4, LEN, PARENT)
NAMED = (
    field(5, LEN, b"llm") + field(6, VARINT, b"\x03") + field(7, FIXED64, b"12345678") + field(8, FIXED64, b"87654321")
)
ROUTE = attribute("http.route", "/chat/" + "x" * 90)
RUN = attribute(ID, "u_666") + attribute("neatlogs.end_user.metadata", '{"note":"' + "m" * 150 + '"}')
END = field(15, LEN, b"\x18\x01") + field(16, FIXED32, b"\x01\x01\x00\x00")
CHILD = BEGIN + NAMED + ROUTE + RUN + END
PLAIN_CHILD = BEGIN + NAMED + ROUTE + END
ROOT = CHILD.replace(field(4, LEN, PARENT), b"")


def backwards(key: str, value: str) -> bytes:
    """An attribute field as a Collector writes it, value first."""
    encoded = AnyValue(string_value=value).SerializeToString()
    return field(9, LEN, field(2, LEN, encoded) + field(1, LEN, key.encode()))


BACKWARDS_END = field(5, LEN, b"llm") + field(4, LEN, PARENT) + field(2, LEN, b"s" * 8) + field(1, LEN, b"t" * 16)
BACKWARDS_VALUES = (
    "u_666",
    "",
    " ",
    "J",
    "J!",
    "JJJJJJJJJJJJJJJJ",
    "Just JSON: JJ",
    "m" * 150,
    "J" * 150,
    "m" * 1_200,
    backwards(ID, "u_999").decode(),
    attribute(ID, "u_999").decode(),
    backwards(ID, "u_999").decode() + "z" * 150,
)

ODD = {
    "a second parent that is empty": field(4, LEN, b""),
    "a second parent": field(4, LEN, b"\x22" * 8),
    "a second name": field(5, LEN, b"other"),
    "a second status": field(15, LEN, b"\x18\x02"),
    "an unknown field": field(99, LEN, b"from the future"),
    "a group": varint(99 << 3 | GROUP) + varint(99 << 3 | GROUP_END),
    "a kind of another wire type": field(6, FIXED64, b"12345678"),
    "attributes of another wire type": field(9, VARINT, b"\x01"),
    "a padded length": field(3, LEN, b"vendor=1", length_padding=2),
    "a padded tag": field(3, LEN, b"vendor=1", tag_padding=2),
    "a varint over 64 bits": field(10, VARINT, b"\xff" * 9 + b"\x03"),
    "a varint over 32 bits": field(10, VARINT, b"\xff" * 9 + b"\x01"),
    "an event that quotes the key": field(11, LEN, field(2, LEN, ID.encode())),
    "an event with identity": field(11, LEN, attribute(ID, "u_999").replace(b"\x4a", b"\x1a", 1)),
    "identity apart from the others": attribute("http.method", "GET") + attribute(ID, "u_999"),
    "a prompt that quotes the key": attribute("input.value", f"what is {ID}?"),
    "a prompt that imitates the wire": attribute("input.value", attribute(ID, "u_999").decode()),
    "a key of its own twice": field(9, LEN, field(1, LEN, ID.encode()) + field(1, LEN, b"a") + field(2, LEN, b"")),
    "an attribute with more than key and value": field(
        9, LEN, field(2, LEN, b"\n\0") + field(3, VARINT, b"\x01") + field(1, LEN, ID.encode())
    ),
    "an attribute without a value": field(9, LEN, field(1, LEN, ID.encode())),
    "an attribute with an empty value": field(9, LEN, field(1, LEN, ID.encode()) + field(2, LEN, b"")),
    "a similar key": attribute("neatlogs.end_users", "many"),
    "an attribute of no length, in three bytes": b"\x4a\x80\x80\x00",
    "an attribute of no length, in four bytes": b"\x4a\x80\x80\x80\x00",
    "an attribute with a length of five bytes": field(9, LEN, field(1, LEN, b"a"), length_padding=4),
    "a long attribute": attribute("input.value", "x" * 20_000),
    "a long attribute with identity": attribute("neatlogs.end_user.metadata", "m" * 20_000),
    "half a field": b"\x4a\x7f",
}


@pytest.mark.parametrize("place", ["in front", "behind", "at the end"])
@pytest.mark.parametrize("odd", ODD)
def test_what_is_odd_is_dealt_with_as_ever(odd: str, place: str) -> None:
    """Whatever stands beside a run of identity attributes, the official reader agrees with the result."""
    strange = {
        "in front": BEGIN + NAMED + ODD[odd] + ROUTE + RUN + END,
        "behind": BEGIN + NAMED + ROUTE + RUN + ODD[odd] + END,
        "at the end": BEGIN + NAMED + ROUTE + RUN + END + ODD[odd],
    }[place]
    for span in (strange, strange.replace(field(4, LEN, PARENT), b"", 1)):
        check_both(body_of(span))
        check_both(body_of(CHILD, ROOT, span, CHILD, PLAIN_CHILD, ROOT))


@pytest.mark.parametrize("value", BACKWARDS_VALUES)
def test_values_in_front_of_their_keys(value: str) -> None:
    """A run that a Collector wrote is found from its end, whatever its values look like."""
    status, route = field(15, LEN, b"\x18\x01"), backwards("http.route", "/chat/" + "x" * 90)
    for run in (backwards(ID, value), backwards(ID, "u_1") + backwards("neatlogs.end_user.source", value)):
        child = status + route + run + BACKWARDS_END
        check_both(body_of(child))
        check_both(body_of(child, child.replace(PARENT, b"\0" * 8), child.replace(field(4, LEN, PARENT), b"\x22\0")))
        check_both(body_of(status + run + route + BACKWARDS_END, CHILD, ROOT))


@pytest.mark.parametrize("place", ["in front", "behind"])
@pytest.mark.parametrize("odd", ODD)
def test_what_is_odd_where_all_is_backwards(odd: str, place: str) -> None:
    """Oddities beside a run that a Collector wrote change nothing about the result either."""
    run = backwards(ID, "u_666") + backwards("neatlogs.end_user.metadata", "m" * 150)
    strange = {"in front": ODD[odd] + run, "behind": run + ODD[odd]}[place]
    check_both(body_of(field(15, LEN, b"") + strange + BACKWARDS_END, CHILD))
    check_both(body_of(field(15, LEN, b"") + run + BACKWARDS_END, ODD[odd] + run + BACKWARDS_END))


@pytest.mark.parametrize("parent", [PARENT, b"\0" * 8, b"", None, b"\x11" * 3])
def test_roots_are_counted_by_the_ids_at_their_end(parent: bytes | None) -> None:
    """Without any identity, spans that a Collector wrote are counted by the ids at their end."""
    named = b"" if parent is None else field(4, LEN, parent)
    span = field(15, LEN, b"") + BACKWARDS_END.replace(field(4, LEN, PARENT), named)
    assert enforce_traces(body_of(span, span), STRICT).counts.roots == (0 if (parent or b"").strip(b"\0") else 2)


def test_a_status_in_front_says_nothing_about_the_end() -> None:
    """A span that begins like a Collector's and ends in another way is read to its end to be counted."""
    span = field(15, LEN, b"") + field(4, LEN, PARENT) + NAMED + ROUTE
    assert enforce_traces(body_of(span, field(15, LEN, b"") + NAMED + ROUTE), STRICT).counts.roots == 1


@pytest.mark.parametrize("kind", [b"\x83\x00", b"\xff\x01", b"\xff" * 9 + b"\x01"])
def test_kinds_of_more_than_a_byte_are_read(kind: bytes) -> None:
    """A kind that takes more than a byte, for whatever reason, is hopped over, and the run behind it is cut."""
    begin = BEGIN + field(6, VARINT, kind)
    assert enforce_traces(body_of(begin + ROUTE + RUN), STRICT).body == body_of(begin + ROUTE)


@pytest.mark.parametrize("behind", [ROUTE, ODD["an event with identity"], field(13, LEN, field(4, LEN, b"")), RUN])
def test_a_name_that_quotes_the_key_hides_nothing(behind: bytes) -> None:
    """The occurrence in the name is passed over, whatever comes next; the others are dealt with."""
    check_both(body_of(BEGIN + field(5, LEN, ID.encode()) + behind + ROUTE + RUN))


def test_a_group_beside_a_run_is_refused_wherever_it_stands() -> None:
    """The batch of a span with identity and a group is refused, although its other spans are regular."""
    for span in (CHILD + ODD["a group"], BEGIN + ODD["a group"] + RUN):
        assert check_both(body_of(CHILD, span)) == "refused"


def test_bytes_that_imitate_an_attribute_are_data() -> None:
    """A value that holds the encoding of an identity attribute, and is the only occurrence, stays."""
    body = body_of(*[BEGIN + NAMED + attribute("input.value", RUN.decode("latin-1")) + END] * 3)
    assert enforce_traces(body, STRICT).body is body


@pytest.mark.parametrize("size", [*range(120, 135), 16_360, 16_368, 16_380, 16_390, 70_000])
@pytest.mark.parametrize("end", [b"", END])
def test_spans_of_every_size_are_cut(size: int, end: bytes) -> None:
    """What leaves is the span without its identity, whatever its size."""
    name = field(5, LEN, b"n" * (size - len(BEGIN) - len(end) - 2 - (size > 180) - (size > 17_000)))
    for first in (BEGIN, BEGIN.replace(field(4, LEN, PARENT), b"")):
        body = body_of(*[first + name + RUN + end] * 3)
        expected = body_of(*[first + name + end] * 3) if first == BEGIN else body
        assert enforce_traces(body, STRICT).body == expected


def test_all_overrides_are_counted_and_the_first_described() -> None:
    """In a batch of more overrides than are described, and of more spans than are proven together, each is counted."""
    number = 2 * AT_ONCE + 5
    enforced = enforce_traces(body_of(*[CHILD] * number), STRICT)
    assert enforced.body == body_of(*[PLAIN_CHILD] * number)
    assert enforced.counts.overrides[Place.CHILD] == 2 * number
    assert len(enforced.overrides) == MAX_REPORTED_OVERRIDES
    assert enforced.overrides_not_reported == 2 * number - MAX_REPORTED_OVERRIDES
    first, second, *_ = enforced.overrides
    assert (first.key, second.key) == (ID, "neatlogs.end_user.metadata")
    assert (first.trace_id, first.span_id, first.span_name) == (b"t" * 16, b"s" * 8, "llm")


def test_an_odd_span_does_not_harm_the_others() -> None:
    """A span that has to be walked stands among regular ones, and all are cut in their order."""
    odd = CHILD + ODD["an unknown field"]
    spans = [CHILD] * 40 + [odd] + [CHILD] * 40
    enforced = enforce_traces(body_of(*spans), STRICT)
    assert enforced.body == body_of(*[span.replace(RUN, b"") for span in spans])


def test_roots_keep_long_metadata_byte_for_byte() -> None:
    """Roots whose metadata is longer than 127 bytes need no edit: the request leaves as the same object."""
    body = body_of(*[ROOT, PLAIN_CHILD] * 20)
    enforced = enforce_traces(body, STRICT)
    assert enforced.body is body
    assert (enforced.counts.roots, enforced.counts.roots_with_identity) == (20, 20)


@pytest.mark.parametrize("length", [16_383, 16_384, 40_000])
def test_roots_keep_metadata_of_any_length(length: int) -> None:
    """Lengths of three bytes, too, are read exactly."""
    run = attribute(ID, "u_812") + attribute("neatlogs.end_user.metadata", "m" * length)
    body = body_of(ROOT.replace(RUN, run))
    assert enforce_traces(body, STRICT).body is body
    check_both(body_of(ROOT.replace(RUN, run + run)))


@pytest.mark.parametrize("identity", [b"", attribute(ID, " ").replace(b"\x4a", b"\x0a", 1)])
def test_a_resource_behind_its_spans_is_cleared_first(identity: bytes) -> None:
    """Where a resource without a usable default stands behind spans with identity, both are edited."""
    resource = field(1, LEN, field(1, LEN, KeyValue(key="service.name").SerializeToString()) + identity)
    check_both(body_of(CHILD, ROOT, CHILD, after=resource))
    assert enforce_traces(body_of(CHILD, after=resource), STRICT).body == body_of(
        PLAIN_CHILD, after=field(1, LEN, field(1, LEN, KeyValue(key="service.name").SerializeToString()))
    )


def test_identity_on_a_scope_in_front_of_spans() -> None:
    """The scope's occurrence of the namespace is not taken for one of the spans behind it."""
    scope = field(1, LEN, attribute(ID, "u_999").replace(b"\x4a", b"\x1a", 1))
    for span in (PLAIN_CHILD, CHILD, ROOT):
        spans = b"".join(field(2, LEN, one) for one in (PLAIN_CHILD, span, PLAIN_CHILD))
        check_both(field(1, LEN, field(2, LEN, scope + spans)))


def test_a_request_that_ends_in_a_span_s_header_is_refused() -> None:
    """A tag without a length at the very end is named for what it is."""
    with pytest.raises(MalformedOtlpError, match="middle of a field"):
        enforce_traces(field(1, LEN, field(2, LEN, b"\x12")), STRICT)
