"""`EndUserSpanExporter`: the processor's rule inside the process, on the way to an exporter."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link

from neatlogs_otel import conventions
from neatlogs_otel._edited_span import EditedSpan, bounded
from neatlogs_otel._leaving import leaving
from neatlogs_otel._warnings import shown, warn_once
from neatlogs_otel.conventions import END_USER_ID, END_USER_METADATA, END_USER_SOURCE, is_identity_key

_NO_ATTRIBUTES: Final[Mapping[str, Any]] = {}

_INSTEAD: Final = "Use trace(..., end_user_id=...), @span or set_end_user(), which name it on the trace's root."


class EndUserSpanExporter(SpanExporter):
    """Wraps an exporter, so that what it exports has one end user per trace, on the root span.

    For setups without the processor:

        provider.add_span_processor(BatchSpanProcessor(neatlogs.EndUserSpanExporter(OTLPSpanExporter())))

    Identity attributes of child spans, events, links and instrumentation scopes are left out (counted, and logged once
    per place); identity on the resource is a default and goes to root spans without an end user; an int id becomes
    text, metadata that is a mapping becomes JSON, and other values that are no text are left out. Where pseudonyms are
    asked for (see `init()`), no id leaves as it is. All else passes as it is: a span that needs no change is passed on
    as the same object, and no span is changed for other exporters.

    Args:
        exporter: The exporter that gets the spans.
        roots: As for `EndUserSpanProcessor`.
        entry_services: With `roots="entry"`: the `service.name` values whose entry spans carry identity; `None` means
            every service of this process.

    Raises:
        ValueError: `roots` is something else.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        *,
        roots: Literal["trace", "entry"] = "trace",
        entry_services: Collection[str] | None = None,
    ) -> None:
        if roots not in ("trace", "entry"):
            raise ValueError('roots must be "trace" or "entry"')
        self._exporter = exporter
        self._entry = roots == "entry"
        self._entry_services = None if entry_services is None else frozenset(entry_services)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export the spans after the rule."""
        batch, allowed = _Batch(), leaving()
        return self._exporter.export(
            [allowed.span(batch.enforced(span, owns=self._owns_identity(span))) for span in spans]
        )

    def shutdown(self) -> None:
        """Shut the wrapped exporter down."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Flush the wrapped exporter; `timeout_millis` in milliseconds."""
        return self._exporter.force_flush(timeout_millis)

    def _owns_identity(self, span: ReadableSpan) -> bool:
        parent = span.parent
        if parent is None or parent.span_id == 0:
            return True
        if not self._entry or not parent.is_remote:
            return False
        return self._entry_services is None or span.resource.attributes.get("service.name") in self._entry_services


class _Batch:
    """The spans of one export; resources and scopes that many of them share are judged once."""

    def __init__(self) -> None:
        # The originals are kept beside what was made of them, so that no id() is reused within the batch.
        self._resources: dict[int, tuple[Resource, Resource, dict[str, str]]] = {}
        self._scopes: dict[int, tuple[InstrumentationScope, InstrumentationScope]] = {}

    def enforced(self, span: ReadableSpan, *, owns: bool) -> ReadableSpan:
        """The span after the rule; the same object where nothing has to change."""
        resource, default = self._resource(span.resource)
        scope = self._scope(span.instrumentation_scope)
        attributes = span.attributes or _NO_ATTRIBUTES
        changed = _root_attributes(attributes, default, span.name) if owns else _child_attributes(attributes, span.name)
        events = _events(span)
        links = _links(span)
        if (
            changed is attributes
            and events is None
            and links is None
            and resource is span.resource
            and scope is span.instrumentation_scope
        ):
            return span
        return EditedSpan(span, attributes=changed, events=events, links=links, resource=resource, scope=scope)

    def _resource(self, resource: Resource) -> tuple[Resource, dict[str, str]]:
        known = self._resources.get(id(resource))
        if known is None:
            known = (resource, *_split_resource(resource))
            self._resources[id(resource)] = known
        return known[1], known[2]

    def _scope(self, scope: InstrumentationScope | None) -> InstrumentationScope | None:
        if scope is None:
            return None
        known = self._scopes.get(id(scope))
        if known is None:
            known = (scope, _clean_scope(scope))
            self._scopes[id(scope)] = known
        return known[1]


def _root_attributes(attributes: Mapping[str, Any], default: Mapping[str, str], name: str) -> Mapping[str, Any]:
    """A root span's attributes with usable identity values, and what it takes of its resource's default."""
    if not default and not any(map(is_identity_key, attributes)):
        return attributes
    kept: dict[str, Any] = {}
    usable: dict[str, str] = {}
    for key, value in attributes.items():
        if not is_identity_key(key):
            kept[key] = value
            continue
        text = conventions.text_of(key, value)
        if text is None:
            warn_once(
                "invalid_identity",
                (name, key),
                "%s of span %s is left out: it is a %s.",
                key,
                shown(name),
                type(value).__name__,
            )
        else:
            kept[key] = usable[key] = text
    refused = END_USER_ID in attributes and END_USER_ID not in usable
    if not refused and not usable.get(END_USER_ID, "").strip():
        kept.update(_taken(default, usable))
    return attributes if kept == dict(attributes) else kept


def _taken(default: Mapping[str, str], usable: Mapping[str, str]) -> dict[str, str]:
    taken = {key: value for key, value in default.items() if key == END_USER_ID or key not in usable}
    if taken and END_USER_SOURCE not in usable:
        taken[END_USER_SOURCE] = "resource"
    return taken


def _child_attributes(attributes: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return _without_identity(attributes, "child span", name)


def _without_identity(attributes: Mapping[str, Any], place: str, name: str) -> Mapping[str, Any]:
    found = [key for key in attributes if is_identity_key(key)]
    for key in found:
        warn_once(
            "override_ignored",
            (place, name, key),
            "%s on %s %s is ignored: one end user per trace, and the root span owns it. %s",
            key,
            place,
            shown(name),
            _INSTEAD,
        )
    return {key: value for key, value in attributes.items() if key not in found} if found else attributes


def _events(span: ReadableSpan) -> list[Event] | None:
    """The events, if one of them has to change."""
    events: list[Event] = []
    changed = False
    for event in span.events:
        attributes = event.attributes or _NO_ATTRIBUTES
        left = _without_identity(attributes, "an event of span", span.name)
        if left is attributes:
            events.append(event)
        else:
            changed = True
            events.append(Event(event.name, bounded(left, event.dropped_attributes), event.timestamp))
    return events if changed else None


def _links(span: ReadableSpan) -> list[Link] | None:
    """The links, if one of them has to change."""
    links: list[Link] = []
    changed = False
    for link in span.links:
        attributes = link.attributes or _NO_ATTRIBUTES
        left = _without_identity(attributes, "a link of span", span.name)
        if left is attributes:
            links.append(link)
        else:
            changed = True
            links.append(Link(link.context, bounded(left, link.dropped_attributes)))
    return links if changed else None


def _split_resource(resource: Resource) -> tuple[Resource, dict[str, str]]:
    """The resource without identity, and the default that stood on it: an id, metadata, both or nothing."""
    attributes = resource.attributes
    if not any(map(is_identity_key, attributes)):
        return resource, {}
    left = {key: value for key, value in attributes.items() if not is_identity_key(key)}
    end_user_id = conventions.text_of(END_USER_ID, attributes.get(END_USER_ID))
    metadata = conventions.text_of(END_USER_METADATA, attributes.get(END_USER_METADATA))
    default: dict[str, str] = {}
    if END_USER_ID not in attributes or end_user_id is not None:  # An id of no use leaves nobody, not half a default.
        if end_user_id is not None and end_user_id.strip():
            default[END_USER_ID] = end_user_id
        if metadata is not None:
            default[END_USER_METADATA] = metadata
    return Resource(left, resource.schema_url), default


def _clean_scope(scope: InstrumentationScope) -> InstrumentationScope:
    attributes: Mapping[str, Any] = scope.attributes or _NO_ATTRIBUTES
    left = _without_identity(attributes, "instrumentation scope", scope.name)
    if left is attributes:
        return scope
    return InstrumentationScope(scope.name, scope.version, scope.schema_url, left)
