"""What becomes of identity that other SDKs wrote: which of it is taken, by whom, and what stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from bench.payloads import request as batch
from bench.payloads import said_by_an_sdk
from neatlogs_processor.core.accepting import Accepting
from neatlogs_processor.core.identity_keys import SDKS, read_identity_keys
from neatlogs_processor.core.metadata_text import MAX_METADATA_CHARS
from neatlogs_processor.core.policy import Counts, EndUserPolicy, Enforced, Place
from neatlogs_processor.core.treatment import Treatment
from neatlogs_processor.errors import MalformedOtlpError
from support.byte_orders import BYTE_ORDERS, in_byte_order
from support.owner_oracle import oracle_edit
from support.spans import attributes as texts
from support.spans import child, request, root
from support.wire_forms import LEN, field, read_fields

STRICT = EndUserPolicy()
ENTRY = EndUserPolicy("entry", frozenset({"shop"}))
ID, METADATA, SOURCE, SESSION = (
    "neatlogs.end_user.id",
    "neatlogs.end_user.metadata",
    "neatlogs.end_user.source",
    "neatlogs.session.id",
)
KEYS = "langfuse.user.id,user.id,session.id,metadata,app.user.*"


def treat(body: bytes, keys: str = KEYS, *, strip: bool = False, policy: EndUserPolicy = STRICT) -> Enforced:
    """Accept and enforce."""
    return Treatment(policy, accept=Accepting(read_identity_keys(keys.split(",")), strip=strip))(body)


def attributes(enforced: Enforced, name: str = "root") -> dict[str, object]:
    """The attributes of a span by key; no key may stand there twice."""
    for resource_spans in ExportTraceServiceRequest.FromString(enforced.body).resource_spans:
        for span in resource_spans.scope_spans[0].spans:
            if span.name == name:
                found = {
                    one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value")
                    for one in span.attributes
                }
                assert len(found) == len(span.attributes)
                return found
    raise AssertionError(name)


def span_with(values: Sequence[tuple[str, AnyValue]]) -> Span:
    """A span named `root` with attributes of any type."""
    span = Span(trace_id=b"t" * 16, span_id=b"s" * 8, name="root")
    span.attributes.extend(KeyValue(key=key, value=value) for key, value in values)
    return span


def text(value: str) -> AnyValue:
    return AnyValue(string_value=value)


def map_of(**members: AnyValue) -> AnyValue:
    return AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key=key, value=one) for key, one in members.items()]))


def test_the_first_key_with_a_value_becomes_the_identity() -> None:
    """Keys are asked in the order of the setting, whatever the order on the span; the source names the key."""
    enforced = treat(request(root(user__id="u_2", langfuse__user__id="u_1", session__id="s_1")))
    assert attributes(enforced) == {
        "user.id": "u_2",
        "langfuse.user.id": "u_1",
        "session.id": "s_1",
        ID: "u_1",
        SOURCE: "langfuse.user.id",
        SESSION: "s_1",
    }
    assert (enforced.counts.roots, enforced.counts.roots_with_identity, enforced.counts.accepted) == (1, 1, 1)


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        (text("u_1"), "u_1"),
        (AnyValue(int_value=812), "812"),
        (text(""), "u_next"),
        (text("  "), "u_next"),
        (text("[Scrubbed due to 'auth']"), "u_next"),
        (AnyValue(bool_value=True), "u_next"),
        (AnyValue(double_value=1.5), "u_next"),
        (AnyValue(array_value=ArrayValue(values=[text("u")])), "u_next"),
        (AnyValue(), "u_next"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value).strip() or "none",
)
def test_only_a_usable_value_is_accepted(value: AnyValue, accepted: str) -> None:
    """Text that is not blank and ints are ids, as on a root's own; otherwise the next key is asked."""
    body = request(span_with([("langfuse.user.id", value), ("user.id", text("u_next"))]))
    assert attributes(treat(body))[ID] == accepted


def test_of_a_key_that_stands_twice_the_first_usable_value_counts() -> None:
    """A blank value in front of a good one under the same key is passed over."""
    span = span_with([("user.id", text(" ")), ("user.id", text("u_1"))])
    body = request(span)
    (left,) = ExportTraceServiceRequest.FromString(treat(body).body).resource_spans[0].scope_spans[0].spans
    assert [one.value.string_value for one in left.attributes if one.key == ID] == ["u_1"]


def test_identity_of_the_root_s_own_comes_first() -> None:
    """A root that names its end user takes neither id nor metadata from elsewhere, and is not touched at all."""
    body = request(root(neatlogs__end_user__id="u_1", user__id="u_2", metadata='{"plan":"pro"}'))
    enforced = treat(body)
    assert enforced.body is body
    assert enforced.counts.accepted == 0


def test_a_refused_id_is_nobody_s() -> None:
    """A root whose own id is of no use takes nobody else's: the rule removes it, and no identity is left."""
    body = request(span_with([(ID, AnyValue(bool_value=True)), ("user.id", text("u_2"))]))
    enforced = treat(body)
    assert attributes(enforced) == {"user.id": "u_2"}
    assert enforced.counts.invalid == 1


def test_a_blank_id_is_no_identity() -> None:
    """A root whose own id is blank takes the accepted one in its place, and the source says whose it is."""
    body = request(root(neatlogs__end_user__id=" ", neatlogs__end_user__source="trace", user__id="u_2"))
    assert attributes(treat(body)) == {ID: "u_2", SOURCE: "user.id", "user.id": "u_2"}


def test_what_is_accepted_ranks_above_the_default_of_a_resource() -> None:
    """The request's own user is the end user, not the default that its process was started with."""
    enforced = treat(request(root(user__id="u_1"), neatlogs__end_user__id="u_default"))
    assert attributes(enforced) == {"user.id": "u_1", ID: "u_1", SOURCE: "user.id"}
    assert enforced.counts.defaults_moved == 1


def test_the_operator_is_never_accepted() -> None:
    """A resource's `user.id` is who runs the process: it is not read, and stays where it is."""
    body = request(root(input__value="hi"), user__id="operator", session__id="s_1")
    enforced = treat(body)
    assert enforced.body is body


def test_events_and_links_are_not_asked() -> None:
    """A user on an event or a link of the root is not the trace's end user."""
    span = root()
    span.events.add(name="said").attributes.extend(root(user__id="u_1").attributes)
    span.links.add(trace_id=b"t" * 16).attributes.extend(root(user__id="u_1").attributes)
    body = request(span)
    assert treat(body).body is body


def test_children_keep_what_they_said() -> None:
    """Without stripping a child's keys are another SDK's and stay, and it owns no identity."""
    body = request(root(), child(user__id="u_1", session__id="s_1"))
    enforced = treat(body)
    assert enforced.body is body
    assert enforced.counts.overrides_total == 0


def test_stripped_children_lose_the_keys() -> None:
    """With stripping all accepted keys leave children, counted and described as ignored overrides."""
    body = request(root(user__id="u_1"), child("llm", user__id="u_2", app__user__plan="pro", input__value="user.id"))
    enforced = treat(body, strip=True)
    assert attributes(enforced, "llm") == {"input.value": "user.id"}
    assert enforced.counts.overrides[Place.CHILD] == 2
    assert [(one.service, one.span_name, one.place, one.key) for one in enforced.overrides] == [
        ("shop", "llm", Place.CHILD, "user.id"),
        ("shop", "llm", Place.CHILD, "app.user.plan"),
    ]


def test_entry_spans_accept_under_the_policy() -> None:
    """Where entry spans own identity they take it like root spans; elsewhere they are children."""
    span = child("root", user__id="u_1")
    span.flags = 0x300
    body = request(span)
    assert attributes(treat(body, policy=ENTRY))[ID] == "u_1"
    assert treat(body).body is body


NESTED = "[" * 100_000
TOO_LONG = '{"plan":"' + "x" * MAX_METADATA_CHARS + '"}'


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"metadata": text('{"plan": "pro"}')}, '{"plan": "pro"}'),
        ({"metadata": map_of(n=AnyValue(int_value=1))}, '{"n":1}'),
        ({"metadata": text("[1]")}, None),
        ({"metadata": text("{}")}, None),
        ({"metadata": text("not json")}, None),
        ({"metadata": text(NESTED)}, None),
        ({"metadata": AnyValue(int_value=1)}, None),
        ({"metadata": map_of()}, None),
        ({"metadata": text("x"), "app.user.plan": text("pro")}, '{"plan":"pro"}'),
        (
            {"app.user.seats": AnyValue(int_value=3), "app.user.vip": AnyValue(bool_value=True)},
            '{"seats":3,"vip":true}',
        ),
        ({"app.user.size": text('{"n": 40}'), "app.user.name": text('"Ada"')}, '{"name":"Ada","size":{"n":40}}'),
        ({"app.user.broken": text('{"n": '), "app.user.n": text("40")}, '{"broken":"{\\"n\\": ","n":"40"}'),
        ({"app.user.half": text('"\\ud800"'), "app.user.nan": text("[NaN]")}, '{"half":"\ufffd","nan":["NaN"]}'),
        ({"app.user.deep": text(NESTED)}, f'{{"deep":"{NESTED}"}}'),
        ({"app.user.": text("nameless")}, None),
        ({"metadata": text(TOO_LONG)}, None),
        ({"metadata": map_of(plan=text(TOO_LONG))}, None),
        ({"app.user.name": text("Ada"), "app.user.long": text(TOO_LONG)}, None),
    ],
    ids=range(18),
)
def test_metadata_is_one_object(values: Mapping[str, AnyValue], expected: str | None) -> None:
    """A JSON object or map is metadata as it is; members gather into one; what else there is is passed over."""
    found = attributes(treat(request(span_with([("user.id", text("u_1")), *values.items()]))))
    assert found.get(METADATA) == expected


def test_metadata_of_the_root_s_own_stays() -> None:
    """A root with metadata and no id takes the id alone."""
    body = request(root(neatlogs__end_user__metadata='{"plan":"pro"}', user__id="u_1", metadata='{"plan":"free"}'))
    found = attributes(treat(body))
    assert (found[ID], found[METADATA]) == ("u_1", '{"plan":"pro"}')


def test_metadata_alone_goes_to_the_id_of_the_default() -> None:
    """A root that says metadata and no user lends it to the id of its process, whose source the rule names."""
    found = attributes(treat(request(root(metadata='{"plan":"pro"}'), neatlogs__end_user__id="u_default")))
    assert (found[ID], found[METADATA], found[SOURCE]) == ("u_default", '{"plan":"pro"}', "resource")


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (text("s_own"), "s_own"),
        (AnyValue(int_value=7), 7),
        (AnyValue(bool_value=True), True),
        (text(""), "s_1"),
        (text(" \t"), "s_1"),
    ],
)
def test_a_session_is_accepted_where_there_is_none(own: AnyValue, expected: object) -> None:
    """A session of the root's own stays whatever it is; a blank one gives way."""
    body = request(span_with([(SESSION, own), ("session.id", text("s_1"))]))
    assert attributes(treat(body))[SESSION] == expected


def test_a_key_that_is_listed_is_no_member() -> None:
    """User and session under the prefix of the metadata are no part of it."""
    prefix = "traceloop.association.properties"
    values = {f"{prefix}.user_id": "u_1", f"{prefix}.session_id": "s_1", f"{prefix}.plan": "pro"}
    body = request(span_with([(key, text(value)) for key, value in values.items()]))
    found = attributes(Treatment(STRICT, accept=Accepting(SDKS["traceloop"], strip=False))(body))
    assert (found[ID], found[SESSION], found[METADATA]) == ("u_1", "s_1", '{"plan":"pro"}')


def test_accepting_twice_is_accepting_once() -> None:
    """What was accepted is the root's own afterwards: a second processor finds nothing to do."""
    body = request(root(user__id="u_1", metadata='{"a":1}', session__id="s"), child(user__id="u_2"))
    once = treat(body, strip=True).body
    assert treat(once, strip=True).body is once


@pytest.mark.parametrize("strip", [False, True])
@pytest.mark.parametrize("order", BYTE_ORDERS)
def test_every_byte_order_is_read_and_kept(order: str, strip: bool) -> None:
    """Whoever wrote a request, its users are found, and of each span what stays is byte for byte as it was written."""
    written = in_byte_order(said_by_an_sdk(batch("llm", 48, "nowhere"), "every"), order)
    stage = Accepting(SDKS["openinference"], strip=strip)
    edited = stage(written, STRICT)
    put = {ID: "u_812", SOURCE: "user.id", METADATA: '{"plan":"pro","region":"eu"}', SESSION: "s_1"}
    keys = ("user.id", "session.id", "metadata")
    expected, removed = oracle_edit(written, STRICT, lambda _: (put, ()), lambda key: strip and key in keys)
    assert ExportTraceServiceRequest.FromString(edited.body) == expected
    assert (edited.changed, edited.removed) == (6, removed)
    before = {field for span in spans_in(written) for field in read_fields(span)}
    after = {field for span in spans_in(edited.body) for field in read_fields(span)}
    added = {(9, LEN, one.SerializeToString()) for one in texts(put)}
    assert after - added <= before


def spans_in(body: bytes) -> list[bytes]:
    """The bytes of each span, without the lengths around it."""
    return [
        span
        for _, _, resource_spans in read_fields(body)
        for number, _, scope_spans in read_fields(resource_spans)
        if number == 2
        for inner, _, span in read_fields(scope_spans)
        if inner == 2
    ]


def test_an_accepted_value_that_cannot_be_read_is_refused() -> None:
    """A user that is no UTF-8 is an error, as an id of the root's own is, and nothing of the request goes on."""
    value = field(9, LEN, field(1, LEN, b"user.id") + field(2, LEN, field(1, LEN, b"\xff")))
    with pytest.raises(MalformedOtlpError):
        treat(field(1, LEN, field(2, LEN, field(2, LEN, value))))


def test_a_request_without_any_of_the_keys_is_the_same_object() -> None:
    """Where there is nothing to accept nothing is copied, and the rule's counts are as ever."""
    body = request(root(neatlogs__end_user__id="u_1"), child())
    enforced = treat(body)
    assert enforced.body is body
    assert enforced.counts == Counts(spans=2, roots=1, roots_with_identity=1)
