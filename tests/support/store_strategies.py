"""Traces as the world sends them, for property tests of the store: few ids, so that much meets; odd values, often."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from support.store_oracle import Sent

ENTRY_SERVICE = "gateway"

_TRACE_IDS = [bytes([number]) * 16 for number in (1, 2, 3)]
_SPAN_IDS = [bytes([number]) * 8 for number in range(1, 10)]
_PARENTS = [b"", bytes(8), b"\x77" * 8]
_TIMES = [0, 1, 5, 5, 10**18, 10**18 + 7, 2**63 + 1, 2**64 - 1]
_NAMES = ["chat", "chat", "Größe", "", "line\nfeed", "neatlogs.trace.complete"]
_TEXTS = ["alice", "bob", "", " ", "ﬁn", "a\nb", "7", "x,y", " x , ,z\n"]
_METADATA = ['{"plan":"pro"}', "{}", "[1]", "not json", '{"a":{"b":[1,null,"ß"]}}']
_KINDS = ["LLM", "llm", "AGENT", "tool", "embedding", ""]
_OPERATIONS = ["chat", "invoke_agent", "execute_tool", "unheard of"]
_COUNTS = [0, 1, 100, -3, 2**63 - 1, 5.0, 0.5, "12", "٣", "1e3", "99999999999999999999", True]


def value(plain: Any) -> AnyValue:
    """Return a plain value as OTLP writes it."""
    if isinstance(plain, bool):
        return AnyValue(bool_value=plain)
    if isinstance(plain, int):
        return AnyValue(int_value=plain)
    if isinstance(plain, float):
        return AnyValue(double_value=plain)
    return AnyValue(string_value=plain)


def attributes(said: dict[str, Any]) -> list[KeyValue]:
    """Return attributes; what is `None` is not said."""
    return [KeyValue(key=key, value=value(plain)) for key, plain in said.items() if plain is not None]


def _maybe(values: list[Any]) -> st.SearchStrategy[Any]:
    return st.none() | st.sampled_from(values)


_SAID = st.fixed_dictionaries(
    {},
    optional={
        "neatlogs.end_user.id": st.sampled_from(_TEXTS),
        "neatlogs.end_user.metadata": st.sampled_from(_METADATA),
        "neatlogs.end_user.source": st.sampled_from(["trace", "init"]),
        "neatlogs.session.id": st.sampled_from([*_TEXTS, 4]),
        "session.id": st.sampled_from([*_TEXTS, 5.0, 0.5, True]),
        "neatlogs.tags": st.sampled_from([*_TEXTS, 6]),
        "neatlogs.span.kind": st.sampled_from(_KINDS),
        "openinference.span.kind": st.sampled_from(_KINDS),
        "gen_ai.operation.name": st.sampled_from(_OPERATIONS),
        "gen_ai.usage.input_tokens": st.sampled_from(_COUNTS),
        "llm.token_count.prompt": st.sampled_from(_COUNTS),
        "gen_ai.usage.completion_tokens": st.sampled_from(_COUNTS),
        "llm.token_count.completion": st.sampled_from(_COUNTS),
        "llm.token_count.total": st.sampled_from(_COUNTS),
    },
)

_RESOURCES = st.fixed_dictionaries(
    {},
    optional={
        "service.name": st.sampled_from(["shop", ENTRY_SERVICE, ENTRY_SERVICE, "", "a\nb", 7]),
        "neatlogs.workflow_name": st.sampled_from(["support", "", 3]),
        "session.id": st.sampled_from(["of the resource", ""]),
        "neatlogs.tags": st.sampled_from(["blue,green", ",", "x"]),
        "user.id": st.just("operator"),
    },
).map(lambda said: Resource(attributes=attributes(said)))

_SPANS = st.builds(
    lambda said, twice, **fields: Span(**fields, attributes=[*attributes(said), *attributes(twice)]),
    said=_SAID,
    # Some senders write a key twice.
    twice=st.sampled_from([{}, {}, {"neatlogs.session.id": "second", "llm.token_count.prompt": 9}]),
    parent_span_id=st.sampled_from([*_PARENTS, *_SPAN_IDS[:2]]),
    name=st.sampled_from(_NAMES),
    kind=st.integers(0, 5),
    start_time_unix_nano=st.sampled_from(_TIMES),
    end_time_unix_nano=st.sampled_from(_TIMES),
    flags=st.sampled_from([0, 0x101, 0x300, 0x301]),
    status=st.sampled_from([Status(), Status(code=Status.STATUS_CODE_OK), Status(code=Status.STATUS_CODE_ERROR)]),
)


@st.composite
def sent_spans(draw: st.DrawFn) -> list[Sent]:
    """Draw spans with their resources, no two with the same ids."""
    resources = draw(st.lists(_RESOURCES, min_size=1, max_size=3))
    places = draw(
        st.lists(
            st.tuples(st.sampled_from(_TRACE_IDS), st.sampled_from([*_SPAN_IDS, bytes(8)])),
            min_size=1,
            max_size=14,
            unique=True,
        )
    )
    found = []
    for trace_id, span_id in places:
        span = draw(_SPANS)
        span.trace_id, span.span_id = trace_id, span_id
        found.append(Sent(span, draw(st.sampled_from(resources))))
    return found


@st.composite
def deliveries(draw: st.DrawFn, sent: list[Sent]) -> list[list[bytes]]:
    """Draw how spans arrive: in any order, some more than once, in any requests, and these in any transactions.

    Returns:
        For each transaction the bodies of its requests.
    """
    again = draw(st.lists(st.sampled_from(sent), max_size=6))
    arriving = draw(st.permutations([*sent, *again]))
    transactions: list[list[bytes]] = [[]]
    while arriving:
        count = draw(st.integers(1, len(arriving)))
        body = request(arriving[:count])
        arriving = arriving[count:]
        if draw(st.booleans()):
            transactions.append([])
        transactions[-1].append(body)
        # A client that did not hear the answer sends the very same request again.
        if draw(st.integers(0, 4)) == 0:
            transactions[-1].append(body)
    return [bodies for bodies in transactions if bodies]


def request(sent: list[Sent]) -> bytes:
    """Return a request with these spans, each run of the same resource in one container."""
    message = ExportTraceServiceRequest()
    for one in sent:
        if not message.resource_spans or message.resource_spans[-1].resource != one.resource:
            scope = ScopeSpans(scope=InstrumentationScope(name="tests", version="1"))
            message.resource_spans.append(ResourceSpans(resource=one.resource, scope_spans=[scope]))
        message.resource_spans[-1].scope_spans[0].spans.append(one.span)
    return message.SerializeToString()
