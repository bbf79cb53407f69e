/** A span that differs from another one: what an exporter of ours hands on in place of a span it must not change. */

import type { ReadableSpan } from "@opentelemetry/sdk-trace-base";

/** What an edit can change. */
export type SpanEdit = Partial<
  Pick<ReadableSpan, "attributes" | "events" | "links" | "resource" | "instrumentationScope" | "status">
>;

/** `span` with other parts; what is not given is the span's own, the counts of what the SDK's limits dropped included. */
export function edited(span: ReadableSpan, edit: SpanEdit): ReadableSpan {
  return {
    name: span.name,
    kind: span.kind,
    spanContext: () => span.spanContext(),
    ...(span.parentSpanContext === undefined ? {} : { parentSpanContext: span.parentSpanContext }),
    startTime: span.startTime,
    endTime: span.endTime,
    status: span.status,
    attributes: span.attributes,
    links: span.links,
    events: span.events,
    duration: span.duration,
    ended: span.ended,
    resource: span.resource,
    instrumentationScope: span.instrumentationScope,
    droppedAttributesCount: span.droppedAttributesCount,
    droppedEventsCount: span.droppedEventsCount,
    droppedLinksCount: span.droppedLinksCount,
    ...edit,
  };
}
