"""The laws of taking requests apart and putting spans together, for requests of any form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.splitting import Apart, Together
from neatlogs_processor.core.stamping import Stamp, read_owner
from neatlogs_processor.core.traces import enforce_traces
from neatlogs_processor.errors import MalformedOtlpError
from support.differential import ENTRY, STRICT, is_readable
from support.spans import root
from support.wire_forms import LEN, read_fields, requests

policies = st.sampled_from((STRICT, ENTRY))
thorough = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


# Made once: to make it takes far longer than to draw from it.
_ANY = requests(groups=True)
_TRACE = b"\xab" * 16
_TRACES = st.sampled_from((_TRACE, b"\x01" * 16, b"\0" * 16))


@st.composite
def enforced(draw: st.DrawFn) -> bytes:
    """A request of any form after the rule, with several traces in it."""
    # All its spans have one trace id: let some have others.
    first, *others = draw(_ANY).split(_TRACE)
    body = first + b"".join(draw(_TRACES) + part for part in others)
    try:
        return enforce_traces(body, STRICT).body
    except MalformedOtlpError:
        return b""


def spans_in(body: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Resource, scope and bytes of every span, as another reader finds them."""
    for number, wire_type, outer in read_fields(body):
        if (number, wire_type) != (1, LEN):
            continue
        resource = b"".join(part for n, w, part in read_fields(outer) if (n, w) == (1, LEN))
        for _, _, inner in (one for one in read_fields(outer) if one[:2] == (2, LEN)):
            scope = b"".join(part for n, w, part in read_fields(inner) if (n, w) == (1, LEN))
            yield from ((resource, scope, span) for n, w, span in read_fields(inner) if (n, w) == (2, LEN))


def by_trace(body: bytes, policy: EndUserPolicy, limit: int) -> dict[bytes, list[tuple[bytes, int]]]:
    """Every trace of a request as requests of its own."""
    traces: dict[bytes, Together] = {}
    for group in Apart(body, policy):
        for head, span in group.spans:
            traces.setdefault(head.trace_id, Together(limit)).add(group.resource, group.scope, span)
    return {trace_id: together.bodies() for trace_id, together in traces.items()}


@thorough
@given(enforced(), policies, st.sampled_from((1, 200, 2**20)))
def test_splitting_and_joining_keeps_every_span_its_resource_and_its_scope(
    body: bytes, policy: EndUserPolicy, limit: int
) -> None:
    """However requests are divided, the spans are byte for byte the same, under what they were under, and as many."""
    divided = by_trace(body, policy, limit)
    got = [span for bodies in divided.values() for one, _ in bodies for span in spans_in(one)]
    assert Counter(got) == Counter(spans_in(body))
    assert sum(count for bodies in divided.values() for _, count in bodies) == len(got)
    # Protobuf merges what is concatenated: joining is no more than that.
    joined = b"".join(one for bodies in divided.values() for one, _ in bodies)
    assert Counter(spans_in(joined)) == Counter(spans_in(body))


@thorough
@given(enforced(), policies)
def test_each_fragment_holds_one_trace(body: bytes, policy: EndUserPolicy) -> None:
    """What is held under a trace id are that trace's spans, as the official reader sees them."""
    for trace_id, bodies in by_trace(body, policy, 2**20).items():
        for one, _ in bodies:
            heads = [head for group in Apart(one, policy) for head, _ in group.spans]
            assert {head.trace_id for head in heads} == {trace_id}
            if trace_id and is_readable(one):
                assert {span.trace_id for span in message_spans(one)} == {trace_id}


@thorough
@given(enforced(), policies)
def test_what_is_no_span_is_neither_lost_nor_doubled(body: bytes, policy: EndUserPolicy) -> None:
    """Spans and the rest together are the request: the rest holds no span, and all its scopes."""
    apart = Apart(body, policy)
    groups = list(apart)
    assert list(spans_in(apart.rest)) == []
    assert [group.spans for group in apart] == [group.spans for group in groups]
    empty = [scope for scope in scopes_in(body) if not any(n == 2 and w == LEN for n, w, _ in read_fields(scope))]
    assert len(list(scopes_in(apart.rest))) == len(empty)


@thorough
@given(enforced())
def test_a_stamped_child_is_itself_and_what_it_inherits(body: bytes) -> None:
    """The official reader sees the span as it was, and the root's identity once, behind its own attributes."""
    spoken = root(neatlogs__end_user__id="u_1", neatlogs__session__id="s_1")
    ((owner, payload),) = next(iter(Apart(scope_with(spoken), STRICT))).spans
    given_by_root = read_owner(owner, payload).attributes
    stamp = Stamp(given_by_root)
    expected = Span.FromString(given_by_root).attributes
    for group in Apart(body, STRICT):
        for head, span in group.spans:
            if not head.trace_id or not is_readable(scope_with(span)):
                continue
            before, after = Span.FromString(span), Span.FromString(stamp.on(span))
            had = {attribute.key for attribute in before.attributes}
            before.attributes.extend(one for one in expected if one.key not in had)
            assert after == before
            assert stamp.on(stamp.on(span)) == stamp.on(span)


def scope_with(span: Span | bytes) -> bytes:
    """A request with one span."""
    raw = span if isinstance(span, bytes) else span.SerializeToString()
    together = Together(1)
    together.add(b"", b"", raw)
    return together.bodies()[0][0]


def message_spans(body: bytes) -> list[Span]:
    """The spans as the official reader sees them."""
    message = ExportTraceServiceRequest.FromString(body)
    scopes: list[ScopeSpans] = [scope for one in message.resource_spans for scope in one.scope_spans]
    return [span for scope in scopes for span in scope.spans]


def scopes_in(body: bytes) -> Iterator[bytes]:
    """Every `ScopeSpans`, as another reader finds it."""
    for number, wire_type, outer in read_fields(body):
        if (number, wire_type) == (1, LEN):
            yield from (inner for n, w, inner in read_fields(outer) if (n, w) == (2, LEN))
