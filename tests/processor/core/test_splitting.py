"""Taking requests apart by span, and putting spans together: what exporters write and what they never would."""

from __future__ import annotations

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.span_heads import CHILD, ENTRY, ROOT, Head
from neatlogs_processor.core.splitting import Apart, Together
from support.byte_orders import BYTE_ORDERS, in_byte_order
from support.spans import TRACE, child, request, root
from support.wire_forms import FIXED32, GROUP, GROUP_END, LEN, VARINT, field, varint

STRICT = EndUserPolicy()
PLENTY = 2**30


def heads(body: bytes, policy: EndUserPolicy = STRICT) -> list[Head]:
    """The heads of all spans."""
    return [head for group in Apart(body, policy) for head, _ in group.spans]


def scope_of(*fields: bytes) -> bytes:
    """A request with one scope that consists of these fields."""
    return field(1, LEN, field(2, LEN, b"".join(fields)))


def test_every_span_says_its_trace_its_rank_and_when_it_began() -> None:
    """Roots and children are told apart, and the ids and the start are those of the wire."""
    first = root("a")
    first.start_time_unix_nano = 7
    assert heads(request(first, child("b"))) == [
        Head(TRACE, ROOT, 7, first.span_id),
        Head(TRACE, CHILD, 0, child().span_id),
    ]


@pytest.mark.parametrize("order", BYTE_ORDERS)
def test_the_byte_order_of_the_exporter_does_not_matter(order: str) -> None:
    """Heads are the same in the order of every exporter, spans in front of their scope and resource included."""
    body = request(root("a"), child("b"), *(child(f"c{number}") for number in range(300)))
    assert heads(in_byte_order(body, order)) == heads(body)


def test_only_entry_spans_of_listed_services_are_entries() -> None:
    """An entry span speaks for its trace where the policy says so for its service, and is a child elsewhere."""
    entry = child("entry")
    entry.flags = 0x300
    policy = EndUserPolicy("entry", frozenset({"shop"}))
    body = request(root(), entry, child())
    assert [head.rank for head in heads(body, policy)] == [ROOT, ENTRY, CHILD]
    assert [head.rank for head in heads(body)] == [ROOT, CHILD, CHILD]
    other = request(root(), entry, child(), service="cart")
    assert [head.rank for head in heads(other, policy)] == [ROOT, CHILD, CHILD]
    assert [group.is_entry_service for group in Apart(body + other, policy)] == [True, False]


@pytest.mark.parametrize("trace_id", [b"", b"\0" * 16, b"\x01" * 15, b"\x01" * 17])
def test_a_span_that_names_no_trace_belongs_to_none(trace_id: bytes) -> None:
    """A missing, empty or misshapen trace id is no trace."""
    assert heads(request(root(trace_id=trace_id)))[0].trace_id == b""


def test_a_span_that_cannot_be_read_belongs_to_no_trace_and_costs_no_other() -> None:
    """A span that ends in the middle of a field, which the rule lets pass, hides no other span's head."""
    sound = root().SerializeToString()
    body = scope_of(field(2, LEN, sound), field(2, LEN, sound + b"\x4a\x7f"), field(2, LEN, sound))
    assert [head.trace_id for head in heads(body)] == [TRACE, b"", TRACE]


def test_of_ids_that_stand_twice_the_last_counts() -> None:
    """The official reader decides about ambiguous spans, as it does everywhere."""
    twice = root(trace_id=b"\x01" * 16).SerializeToString() + root().SerializeToString()
    assert heads(scope_of(field(2, LEN, twice)))[0].trace_id == TRACE


def test_odd_framing_is_walked_as_readers_walk_it() -> None:
    """Padded tags, unknown fields and groups beside spans, and field numbers in other encodings, hide no span."""
    span = root().SerializeToString()
    odd = (
        field(2, LEN, span, tag_padding=1, length_padding=3),
        field(2, VARINT, b"\x07"),
        field(9, FIXED32, b"abcd"),
        varint(5 << 3 | GROUP) + varint(5 << 3 | GROUP_END),
        field(2, LEN, span),
    )
    apart = Apart(scope_of(*odd), STRICT)
    (group,) = apart
    assert [payload for _, payload in group.spans] == [span, span]
    assert group.scope == b"".join(odd[1:4])
    assert apart.rest == b""


def test_what_is_no_span_is_left_over() -> None:
    """Resources and scopes without spans, and unknown fields, are a request of their own."""
    message = ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(schema_url="lonely"),
            ResourceSpans(
                schema_url="partly", scope_spans=[ScopeSpans(schema_url="empty"), ScopeSpans(spans=[root()])]
            ),
        ]
    )
    unknown = field(7, LEN, b"who knows")
    apart = Apart(message.SerializeToString() + unknown, STRICT)
    assert len([group for group in apart if group.spans]) == 1
    left = ExportTraceServiceRequest.FromString(apart.rest)
    assert apart.rest.endswith(unknown)
    assert [one.schema_url for one in left.resource_spans] == ["lonely", "partly"]
    assert [one.schema_url for one in left.resource_spans[1].scope_spans] == ["empty"]


def test_spans_of_one_resource_and_scope_come_to_stand_together() -> None:
    """Putting together what several requests of one process held repeats neither its resource nor its scopes."""
    together = Together(PLENTY)
    for body in (request(root("a")), request(child("b")), request(child("c"), service="cart"), request(child("d"))):
        for group in Apart(body, STRICT):
            for _, span in group.spans:
                together.add(group.resource, group.scope, span)
    ((body, count),) = together.bodies()
    assert count == 4
    message = ExportTraceServiceRequest.FromString(body)
    names = [[span.name for span in one.scope_spans[0].spans] for one in message.resource_spans]
    assert names == [["a", "b", "d"], ["c"]]


def test_requests_stay_within_their_limit_but_for_a_span_that_is_larger() -> None:
    """What is put together is divided where it would become too large, never a span."""
    together = Together(1000)
    sizes = [10, 300, 300, 300, 300, 5000, 10]
    for size in sizes:
        together.add(b"", b"", Span(name="x" * size).SerializeToString())
    bodies = together.bodies()
    assert [count for _, count in bodies] == [4, 1, 1, 1]
    assert [len(body) > 1000 for body, _ in bodies] == [False, False, True, False]
    assert together.bodies() is bodies


def test_a_resource_that_leaves_no_room_for_spans_is_not_repeated_for_each() -> None:
    """However large resources are, dividing costs a bounded number of bytes; the requests are larger instead."""
    together = Together(1000, most_repeated=10_000)
    for number in range(200):
        together.add(bytes([number % 2]) * 2_000, b"scope", b"span")
    bodies = together.bodies()
    assert sum(count for _, count in bodies) == 200
    assert 4_000 < sum(len(body) for body, _ in bodies) < 20_000


def test_nothing_put_together_is_no_request() -> None:
    """Without a span there is nothing to send."""
    assert Together(PLENTY).bodies() == []
