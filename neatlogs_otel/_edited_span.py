"""A span that differs from another one: what an exporter of ours hands on in place of a span it must not change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, Status


class EditedSpan(ReadableSpan):
    """`original` with other parts; what is not given is the original's."""

    def __init__(
        self,
        original: ReadableSpan,
        *,
        resource: Resource | None = None,
        attributes: Mapping[str, Any] | None = None,
        events: Sequence[Event] | None = None,
        links: Sequence[Link] | None = None,
        status: Status | None = None,
        scope: InstrumentationScope | None = None,
    ) -> None:
        super().__init__(
            name=original.name,
            context=original.context,
            parent=original.parent,
            resource=original.resource if resource is None else resource,
            attributes=original.attributes if attributes is None else attributes,
            events=original.events if events is None else events,
            links=original.links if links is None else links,
            kind=original.kind,
            status=original.status if status is None else status,
            start_time=original.start_time,
            end_time=original.end_time,
            instrumentation_scope=original.instrumentation_scope if scope is None else scope,
        )
        self._original = original

    # What the SDK's limits dropped, it counts in containers of its own; an edit changes nothing about that.

    @property
    def dropped_attributes(self) -> int:
        """As on the original span."""
        return self._original.dropped_attributes

    @property
    def dropped_events(self) -> int:
        """As on the original span."""
        return self._original.dropped_events

    @property
    def dropped_links(self) -> int:
        """As on the original span."""
        return self._original.dropped_links


def bounded(attributes: Mapping[str, Any], dropped: int) -> BoundedAttributes:
    """Attributes of an edited event or link, with the count of what the SDK's limits dropped from the original."""
    made = BoundedAttributes(attributes=attributes)
    made.dropped = dropped
    return made
