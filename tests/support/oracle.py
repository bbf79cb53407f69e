"""The rule once more, the plain way: decode with the official protobuf reader, edit messages, encode.

Written without a look at the processor's core, and as slow as it likes to be: it says what the core has to equal.
"""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from collections.abc import Collection
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

NAMESPACE = "neatlogs.end_user"
ID, METADATA, SOURCE = (f"{NAMESPACE}.{name}" for name in ("id", "metadata", "source"))


def oracle_enforce(body: bytes, *, entry_services: Collection[str] = ()) -> tuple[bytes, dict[str, int]]:
    """Enforce the rule on a trace request; the counts are named as the operator's counters are.

    Raises:
        google.protobuf.message.DecodeError: The official reader cannot read the request.
    """
    request = ExportTraceServiceRequest.FromString(body)
    counts: Counter[str] = Counter()
    for resource_spans in request.resource_spans:
        entry = _service_name(resource_spans.resource) in entry_services
        default = _take_default(resource_spans.resource, counts)
        for scope_spans in resource_spans.scope_spans:
            counts["scope"] += _remove(scope_spans.scope)
            for span in scope_spans.spans:
                counts["spans"] += 1
                for event in span.events:
                    counts["event"] += _remove(event)
                for link in span.links:
                    counts["link"] += _remove(link)
                is_root = not any(span.parent_span_id)
                if is_root or (entry and span.flags & 0x300 == 0x300):
                    counts["roots"] += 1
                    _settle_root(span, default, counts)
                else:
                    counts["child"] += _remove(span)
    return request.SerializeToString(), dict(counts)


def is_identity(key: str) -> bool:
    """Whether a key belongs to the identity namespace."""
    return key == NAMESPACE or key.startswith(f"{NAMESPACE}.")


def _service_name(resource: Resource) -> str:
    for attribute in resource.attributes:
        if attribute.key == "service.name":
            return attribute.value.string_value
    return ""


def _remove(message: Any) -> int:
    kept = [attribute for attribute in message.attributes if not is_identity(attribute.key)]
    removed = len(message.attributes) - len(kept)
    if removed:
        del message.attributes[:]
        message.attributes.extend(kept)
    return removed


def _usable(attribute: KeyValue) -> str | None:
    value = attribute.value
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if attribute.key == ID and kind == "int_value":
        return f"{value.int_value:d}"
    if attribute.key == METADATA and kind == "kvlist_value":
        return json.dumps(plain_value(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return None


def plain_value(value: AnyValue) -> Any:
    """A value as JSON has it."""
    match value.WhichOneof("value"):
        case "kvlist_value":
            plain: dict[str, Any] = {}
            for item in reversed(value.kvlist_value.values):
                plain[item.key] = plain_value(item.value)
            return plain
        case "array_value":
            return [plain_value(item) for item in value.array_value.values]
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "double_value" if math.isnan(value.double_value):
            return "NaN"
        case "double_value" if math.isinf(value.double_value):
            return "Infinity" if value.double_value > 0 else "-Infinity"
        case None:
            return None
        case kind:
            return getattr(value, kind)


def settle(attributes: list[KeyValue]) -> tuple[dict[str, str], list[KeyValue], int, bool]:
    """By key, the text that counts; the attributes these come from; how many were of no use; whether an id was."""
    texts: dict[str, str] = {}
    owners: dict[str, KeyValue] = {}
    refused_id = False
    for attribute in attributes:
        text = _usable(attribute)
        if text is None:
            refused_id |= attribute.key == ID
        elif attribute.key not in texts or (attribute.key == ID and not texts[ID].strip() and text.strip()):
            texts[attribute.key] = text
            owners[attribute.key] = attribute
    return texts, list(owners.values()), len(attributes) - len(owners), refused_id and not texts.get(ID, "").strip()


def _take_default(resource: Resource, counts: Counter[str]) -> tuple[str | None, str | None]:
    identity = [attribute for attribute in resource.attributes if is_identity(attribute.key)]
    texts, _, invalid, refused = settle(identity)
    counts["defaults_moved"] += len(identity)
    counts["invalid"] += invalid
    _remove(resource)
    if refused:
        return None, None
    name = texts.get(ID, "")
    return name if name.strip() else None, texts.get(METADATA)


def _settle_root(span: Span, default: tuple[str | None, str | None], counts: Counter[str]) -> None:
    identity = [attribute for attribute in span.attributes if is_identity(attribute.key)]
    texts, owners, invalid, refused = settle(identity)
    counts["invalid"] += invalid
    landed: dict[str, str] = {}
    if not refused and not texts.get(ID, "").strip():
        end_user_id, metadata = default
        if end_user_id is not None:
            landed[ID] = end_user_id
        if metadata is not None and METADATA not in texts:
            landed[METADATA] = metadata
        if landed and SOURCE not in texts:
            landed[SOURCE] = "resource"
    kept = []
    for attribute in span.attributes:
        if not is_identity(attribute.key):
            kept.append(attribute)
        elif any(attribute is owner for owner in owners) and attribute.key not in landed:
            attribute.value.string_value = texts[attribute.key]
            kept.append(attribute)
    kept += [KeyValue(key=key, value=AnyValue(string_value=text)) for key, text in landed.items()]
    if kept != list(span.attributes):
        del span.attributes[:]
        span.attributes.extend(kept)
    counts["roots_with_identity"] += bool(landed.get(ID) or texts.get(ID, "").strip())
