"""The shim's own export: one span processor that stays on a provider, whatever it exports to.

A provider's resource cannot be changed and other exporters must see what they always saw. So what `init()` adds (the
resource attributes, the mask) is added here, to the copies of spans that our own exporter sends. So is what keeps
identity from leaving that was set by hand, on spans, their parts and resources, where pseudonyms are to leave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, Status

from neatlogs_otel import conventions
from neatlogs_otel._capture import Mask, masked
from neatlogs_otel._edited_span import EditedSpan, bounded
from neatlogs_otel._leaving import leaving
from neatlogs_otel._warnings import shown

STATUS_DESCRIPTION: Final = "otel.status_description"
"""The key under which a mask sees a span's status description: OpenTelemetry's name for it as an attribute."""

_NOT_CONTENT: Final = frozenset(
    {conventions.SESSION_ID, conventions.TAGS, conventions.SPAN_KIND, conventions.OPENINFERENCE_SPAN_KIND}
)


class AddingExporter(SpanExporter):
    """Adds resource attributes and applies the mask to copies of the spans, then hands them to the real exporter.

    Args:
        exporter: The exporter that sends.
        resource: Attributes that are merged into each span's resource, and win there.
        mask: See `init(mask=...)`. It gets content only: no key of the identity namespace, no session, tags or span
            kind, which therefore always stay.
    """

    def __init__(self, exporter: SpanExporter, resource: Mapping[str, str], mask: Mask | None) -> None:
        self._exporter = exporter
        self._added = Resource(dict(resource))
        self._mask = mask
        self._merged: tuple[Resource, Resource] | None = None
        self.failures = 0
        """How many exports were not accepted."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export edited copies; the spans themselves are left alone."""
        try:
            allowed = leaving()
            result = self._exporter.export([self._edited(allowed.span(span)) for span in spans])
        except Exception:
            self.failures += 1
            raise  # The batch processor logs it, with its traceback.
        if result is not SpanExportResult.SUCCESS:
            self.failures += 1
        return result

    def shutdown(self) -> None:
        """Shut the real exporter down."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the real exporter."""
        return self._exporter.force_flush(timeout_millis)

    def _edited(self, span: ReadableSpan) -> ReadableSpan:
        resource = self._resource(span.resource)
        if self._mask is None:
            return span if resource is span.resource else EditedSpan(span, resource=resource)
        place = f"init() on span {shown(span.name)}"
        return EditedSpan(
            span,
            resource=resource,
            attributes=self._masked(span.attributes, place),
            events=[self._event(event, place) for event in span.events],
            links=[self._link(link, place) for link in span.links],
            status=self._status(span.status, place),
        )

    def _resource(self, resource: Resource) -> Resource:
        if not self._added.attributes:
            return resource
        merged = self._merged
        if merged is None or merged[0] is not resource:
            self._merged = merged = (resource, resource.merge(self._added))
        return merged[1]

    def _masked(self, attributes: Mapping[str, Any] | None, place: str) -> dict[str, Any]:
        assert self._mask is not None  # noqa: S101  # only called with a mask
        kept: dict[str, Any] = {}
        content: dict[str, Any] = {}
        for key, value in (attributes or {}).items():
            (kept if _always_stays(key) else content)[key] = value
        left = masked(content, (self._mask,), place=place)
        # A mask may add attributes, but it cannot name an end user.
        return {**{key: value for key, value in left.items() if not _always_stays(key)}, **kept}

    def _event(self, event: Event, place: str) -> Event:
        attributes = bounded(self._masked(event.attributes, place), event.dropped_attributes)
        return Event(event.name, attributes, event.timestamp)

    def _link(self, link: Link, place: str) -> Link:
        return Link(link.context, bounded(self._masked(link.attributes, place), link.dropped_attributes))

    def _status(self, status: Status, place: str) -> Status:
        if status.description is None:
            return status
        left = self._masked({STATUS_DESCRIPTION: status.description}, place).get(STATUS_DESCRIPTION)
        return Status(status.status_code, left if isinstance(left, str) else None)


class OwnExport(SpanProcessor):
    """Exports in batches, or not at all. It stays on the provider; what it exports to can be replaced at any time."""

    def __init__(self) -> None:
        self._exporter: AddingExporter | None = None
        self._batch: BatchSpanProcessor | None = None

    def replace(self, exporter: AddingExporter | None) -> BatchSpanProcessor | None:
        """Export to `exporter` from now on; `None`: to nobody. Returns what was in use, to be shut down."""
        before = self._batch
        self._exporter = exporter
        self._batch = BatchSpanProcessor(exporter) if exporter is not None else None
        return before

    @property
    def failures(self) -> int:
        """How many exports of the exporter in use were not accepted."""
        return self._exporter.failures if self._exporter is not None else 0

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing happens at the start of a span."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue the span."""
        batch = self._batch
        if batch is not None:
            batch.on_end(span)

    def shutdown(self) -> None:
        """Export what is queued, then stop. Spans that end later are not exported."""
        batch = self._batch
        if batch is not None:
            batch.shutdown()  # type: ignore[no-untyped-call]  # the SDK left it without a type

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what is queued."""
        batch = self._batch
        # Older releases of the SDK return None, and mean that it went well.
        return batch is None or batch.force_flush(timeout_millis) is not False


def _always_stays(key: str) -> bool:
    return key in _NOT_CONTENT or conventions.is_identity_key(key)
