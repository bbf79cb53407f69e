"""The rule in the process and the rule of the processor come to the same result, span by span."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, TraceFlags

import neatlogs_otel as neatlogs
from neatlogs_otel import conventions as keys
from neatlogs_processor.core.policy import EndUserPolicy
from neatlogs_processor.core.traces import enforce_traces

LOCAL = SpanContext(1, 2**60, is_remote=False, trace_flags=TraceFlags(1))
REMOTE = SpanContext(1, 2**60, is_remote=True, trace_flags=TraceFlags(1))
ZEROS = SpanContext(1, 0, is_remote=True, trace_flags=TraceFlags(1))

text = st.text(alphabet=st.characters(codec="utf-8"), max_size=6)
scalars = (
    text
    | st.sampled_from(["", " ", "\u2028", "alice"])
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.floats()
    | st.binary(max_size=4)
)
values = st.recursive(
    scalars | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text.filter(bool), inner, max_size=3),
    max_leaves=6,
)
attribute_keys = st.sampled_from(
    [
        keys.END_USER_ID,
        keys.END_USER_METADATA,
        keys.END_USER_SOURCE,
        "neatlogs.end_user",
        "neatlogs.end_user.x",
        "neatlogs.end_users",
        "x",
    ]
)
attributes = st.dictionaries(attribute_keys, values, max_size=4)
resources = st.tuples(attributes, st.sampled_from(["shop", "other"])).map(
    lambda pair: {**pair[0], "service.name": pair[1]}
)
shapes = st.tuples(
    attributes, st.sampled_from([None, LOCAL, REMOTE, ZEROS]), attributes, attributes, resources, attributes
)


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """Thousands of overrides are not what this file is about."""
    logger = logging.getLogger("neatlogs_otel")
    logger.disabled = True
    yield
    logger.disabled = False


def by_span(request: ExportTraceServiceRequest) -> dict[bytes, tuple[Any, ...]]:
    """Each span with its resource and scope, attributes in an order of their own."""
    found: dict[bytes, tuple[Any, ...]] = {}
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                for holder in (span, *span.events, *span.links):
                    ordered(holder.attributes)
                found[span.span_id] = (
                    sorted_text(resource_spans.resource.attributes),
                    scope_spans.scope.name,
                    sorted_text(scope_spans.scope.attributes),
                    span.SerializeToString(deterministic=True),
                )
    return found


def ordered(found: Any) -> None:
    kept = sorted(found, key=lambda attribute: attribute.key)
    del found[:]
    found.extend(kept)


def sorted_text(found: Sequence[KeyValue]) -> list[str]:
    return sorted(attribute.SerializeToString(deterministic=True).hex() for attribute in found)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(shapes, max_size=5), st.sampled_from(["trace", "entry"]))
def test_same_result(batch: list[Any], roots: Literal["trace", "entry"]) -> None:
    """Encoded, what our exporter hands on equals what the processor makes of what the plain exporter sends."""
    spans = [
        ReadableSpan(
            f"span {at}",
            context=SpanContext(1, at + 1, is_remote=False, trace_flags=TraceFlags(1)),
            parent=parent,
            attributes=own,
            events=[Event("event", on_event, 5)],
            links=[Link(LOCAL, on_link)],
            resource=Resource(on_resource),
            instrumentation_scope=InstrumentationScope("lib", "1", None, on_scope),
            start_time=1,
            end_time=2,
        )
        for at, (own, parent, on_event, on_link, on_resource, on_scope) in enumerate(batch)
    ]
    inner = InMemorySpanExporter()
    neatlogs.EndUserSpanExporter(inner, roots=roots, entry_services=["shop"]).export(spans)
    in_process = encode_spans(inner.get_finished_spans())
    policy = EndUserPolicy(roots, frozenset({"shop"}))
    by_processor = ExportTraceServiceRequest.FromString(
        enforce_traces(encode_spans(spans).SerializeToString(), policy).body
    )
    assert by_span(in_process) == by_span(by_processor)
