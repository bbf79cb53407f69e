"""The stages beside the rule once more, the plain way: decode with the official reader, edit messages, encode."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from neatlogs_processor.core.policy import EndUserPolicy


def spans_of(request: ExportTraceServiceRequest, policy: EndUserPolicy) -> Iterator[tuple[Span, bool]]:
    """Each span, and whether it owns identity."""
    for resource_spans in request.resource_spans:
        services = [one.value.string_value for one in resource_spans.resource.attributes if one.key == "service.name"]
        entry = policy.roots == "entry" and (services or [""])[0] in policy.entry_services
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield span, not any(span.parent_span_id) or (entry and span.flags & 0x300 == 0x300)


def edit(span: Span, put: Mapping[str, str], removed: Collection[str]) -> None:
    """Leave each text once, in the place of the first attribute with its key or at the end; remove keys."""
    kept = []
    waiting = dict(put)
    for attribute in span.attributes:
        if attribute.key in waiting:
            kept.append(KeyValue(key=attribute.key, value=AnyValue(string_value=waiting.pop(attribute.key))))
        elif attribute.key not in put and attribute.key not in removed:
            kept.append(attribute)
    kept += [KeyValue(key=key, value=AnyValue(string_value=text)) for key, text in waiting.items()]
    replaced = [KeyValue.FromString(one.SerializeToString()) for one in kept]
    del span.attributes[:]
    span.attributes.extend(replaced)


def oracle_edit(
    body: bytes,
    policy: EndUserPolicy,
    decide: Callable[[Span], tuple[Mapping[str, str], Collection[str]] | None],
    is_stripped: Callable[[str], bool],
) -> tuple[ExportTraceServiceRequest, int]:
    """Edit a request.

    Args:
        body: A request that the official reader can read.
        policy: Which spans own identity.
        decide: For a span that owns identity: texts by key and keys to remove, or None.
        is_stripped: Whether a key is removed from all other spans.

    Returns:
        The request and how many attributes were removed from spans that own nothing.
    """
    request = ExportTraceServiceRequest.FromString(body)
    count = 0
    for span, owns in spans_of(request, policy):
        if owns:
            decided = decide(span)
            if decided is not None:
                edit(span, *decided)
        else:
            before = len(span.attributes)
            edit(span, {}, {one.key for one in span.attributes if is_stripped(one.key)})
            count += before - len(span.attributes)
    return request, count
