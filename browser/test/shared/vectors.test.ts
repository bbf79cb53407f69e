/** The conformance vectors, run by `EndUserSpanExporter`: all that spans of the SDK for JavaScript can say. */

import { readdirSync, readFileSync } from "node:fs";
import type { Attributes, AttributeValue, SpanContext } from "@opentelemetry/api";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { InMemorySpanExporter, type ReadableSpan } from "@opentelemetry/sdk-trace-node";
import { describe, expect, it, test } from "vitest";
import { EndUserSpanExporter } from "../../src/node/index.js";
import { DATA } from "../support/cases.js";
import { startUnused } from "../support/recording.js";

startUnused();

interface Attribute {
  readonly key: string;
  readonly value?: Readonly<Record<string, unknown>>;
}

interface Carrier {
  readonly name?: string;
  readonly attributes?: readonly Attribute[];
}

interface WireSpan extends Carrier {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly flags?: number;
  readonly events?: readonly Carrier[];
  readonly links?: readonly (Carrier & { readonly traceId: string; readonly spanId: string })[];
}

interface Request {
  readonly resourceSpans?: readonly {
    readonly resource?: Carrier;
    readonly scopeSpans?: readonly { readonly scope?: Carrier; readonly spans?: readonly WireSpan[] }[];
  }[];
}

interface Vector {
  readonly name: string;
  readonly about: string;
  readonly policy: { readonly roots: "trace" | "entry"; readonly entry_services: readonly string[] };
  readonly request: Request | null;
  readonly expected: Request | null;
}

/** An attribute's value as the SDK holds it; the SDK for JavaScript has no maps and no bytes. */
function sdkValue(value: Attribute["value"]): AttributeValue | undefined {
  const [kind, content] = Object.entries(value ?? {})[0] ?? [];
  switch (kind) {
    case "stringValue":
    case "boolValue":
    case "doubleValue":
      return content as AttributeValue;
    case "intValue":
      return Number.isSafeInteger(Number(content)) ? Number(content) : undefined;
    case "arrayValue": {
      const items = ((content as { values?: Attribute["value"][] }).values ?? []).map(sdkValue);
      return items.includes(undefined) ? undefined : (items as AttributeValue);
    }
    default:
      return undefined;
  }
}

function sdkAttributes(carrier: Carrier | undefined): Attributes {
  return Object.fromEntries((carrier?.attributes ?? []).map(({ key, value }) => [key, sdkValue(value)]));
}

/** Whether spans of the SDK can say what a request says: each key once, and values of the types that it has. */
function isSayable(request: Request): boolean {
  const carriers: Carrier[] = [];
  for (const { resource, scopeSpans = [] } of request.resourceSpans ?? []) {
    carriers.push(resource ?? {});
    for (const { scope, spans = [] } of scopeSpans) {
      carriers.push(scope ?? {});
      for (const span of spans) carriers.push(span, ...(span.events ?? []), ...(span.links ?? []));
    }
  }
  return carriers.every(({ attributes = [] }) => {
    const keys = new Set(attributes.map(({ key }) => key));
    return keys.size === attributes.length && attributes.every(({ value }) => sdkValue(value) !== undefined);
  });
}

function sdkSpans(request: Request): ReadableSpan[] {
  const spans: ReadableSpan[] = [];
  for (const { resource, scopeSpans = [] } of request.resourceSpans ?? []) {
    const made = resourceFromAttributes(sdkAttributes(resource));
    for (const { scope, spans: inside = [] } of scopeSpans) {
      const instrumentationScope = { name: scope?.name ?? "", attributes: sdkAttributes(scope) };
      for (const span of inside) spans.push({ ...sdkSpan(span), resource: made, instrumentationScope });
    }
  }
  return spans;
}

function sdkSpan(span: WireSpan): Omit<ReadableSpan, "resource" | "instrumentationScope"> {
  const context = (traceId: string, spanId: string, isRemote = false): SpanContext => ({
    traceId,
    spanId,
    isRemote,
    traceFlags: 1,
  });
  const isRemote = ((span.flags ?? 0) & 0x300) === 0x300;
  return {
    name: span.name ?? "",
    kind: 0,
    spanContext: () => context(span.traceId, span.spanId),
    ...(span.parentSpanId ? { parentSpanContext: context(span.traceId, span.parentSpanId, isRemote) } : {}),
    startTime: [1, 0],
    endTime: [2, 0],
    duration: [1, 0],
    ended: true,
    status: { code: 0 },
    attributes: sdkAttributes(span),
    events: (span.events ?? []).map((event) => ({
      name: event.name ?? "",
      time: [1, 0],
      attributes: sdkAttributes(event),
    })),
    links: (span.links ?? []).map((link) => ({
      context: context(link.traceId, link.spanId),
      attributes: sdkAttributes(link),
    })),
    droppedAttributesCount: 0,
    droppedEventsCount: 0,
    droppedLinksCount: 0,
  };
}

/** All attributes of all spans. */
function said(spans: readonly ReadableSpan[]): unknown[] {
  return spans.map((span) => [
    span.name,
    span.attributes,
    span.events.map((event) => event.attributes),
    span.links.map((link) => link.attributes),
    span.resource.attributes,
    (span.instrumentationScope as { attributes?: Attributes }).attributes,
  ]);
}

const FOLDER = new URL("vectors/", DATA);
const SAYABLE = readdirSync(FOLDER)
  .filter((file) => file.endsWith(".json"))
  .map((file): Vector => ({ name: file, ...JSON.parse(readFileSync(new URL(file, FOLDER), "utf-8")) }))
  .filter((vector) => vector.request !== null && vector.expected !== null && isSayable(vector.request));

describe("what the exporter hands on says what the vector has to become", () => {
  test.each(SAYABLE)("$name: $about", async ({ policy, request, expected }) => {
    const inner = new InMemorySpanExporter();
    const options = { roots: policy.roots, entryServices: policy.entry_services };
    const exporter = new EndUserSpanExporter(inner, options);
    await new Promise((resolve) => exporter.export(sdkSpans(request ?? {}), resolve));
    expect(said(inner.getFinishedSpans())).toEqual(said(sdkSpans(expected ?? {})));
  });
});

it("leaves out only what no SDK for JavaScript writes", () => {
  expect(SAYABLE.length).toBeGreaterThanOrEqual(25);
});

it("hands on a span that needs no change as the same object", async () => {
  const spans = sdkSpans({
    resourceSpans: [{ scopeSpans: [{ spans: [{ name: "a", traceId: "01", spanId: "02" }] }] }],
  });
  const inner = new InMemorySpanExporter();
  await new Promise((resolve) => new EndUserSpanExporter(inner).export(spans, resolve));
  expect(inner.getFinishedSpans()[0]).toBe(spans[0]);
});

it("takes nothing from a resource whose id is of no use: metadata without its id is half a default", async () => {
  const spans = sdkSpans({
    resourceSpans: [
      {
        resource: {
          attributes: [
            { key: "neatlogs.end_user.id", value: { boolValue: true } },
            { key: "neatlogs.end_user.metadata", value: { stringValue: "{}" } },
          ],
        },
        scopeSpans: [{ spans: [{ name: "a", traceId: "01", spanId: "02" }] }],
      },
    ],
  });
  const inner = new InMemorySpanExporter();
  await new Promise((resolve) => new EndUserSpanExporter(inner).export(spans, resolve));
  expect(said(inner.getFinishedSpans())).toEqual([["a", {}, [], [], {}, {}]]);
});
