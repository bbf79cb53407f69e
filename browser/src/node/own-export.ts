/**
 * The shim's own export: one span processor that stays on a provider, whatever it exports to.
 *
 * What `init()` adds (the resource attributes, the mask) is added here, to the copies of spans that our own exporter
 * sends: a provider's resource cannot be changed, and other exporters must see what they always saw. So is what keeps
 * identity from leaving that was set by hand, on spans, their parts and resources, where pseudonyms are to leave.
 */

import type { Attributes, SpanStatus } from "@opentelemetry/api";
import { type Resource, resourceFromAttributes } from "@opentelemetry/resources";
import {
  BatchSpanProcessor,
  type ReadableSpan,
  type SpanExporter,
  type SpanProcessor,
} from "@opentelemetry/sdk-trace-base";
import { isIdentityKey, OPENINFERENCE_SPAN_KIND, SESSION_ID, SPAN_KIND, TAGS } from "../identity/conventions.js";
import { shown, warnOnce } from "../identity/warnings.js";
import { type Mask, masked } from "../tracing/content.js";
import { edited } from "../tracing/edited-span.js";
import { leaving } from "../tracing/leaving.js";

/** The key under which a mask sees a span's status message: OpenTelemetry's name for it as an attribute. */
const STATUS_DESCRIPTION = "otel.status_description";
const NOT_CONTENT: ReadonlySet<string> = new Set([SESSION_ID, TAGS, SPAN_KIND, OPENINFERENCE_SPAN_KIND]);
const MAX_SHOWN_ERROR = 200;

type Done = Parameters<SpanExporter["export"]>[1];

/** Adds resource attributes and applies the mask to copies of the spans, then hands them to the real exporter. */
export class AddingExporter implements SpanExporter {
  /** How many exports were not accepted. */
  failures = 0;
  readonly #exporter: SpanExporter;
  readonly #url: string;
  readonly #added: Resource;
  readonly #addsNothing: boolean;
  readonly #mask: Mask | undefined;
  readonly #merged = new WeakMap<Resource, Resource>();

  /**
   * @param exporter The exporter that sends.
   * @param url Where to, for the log.
   * @param resource Attributes that are merged into each span's resource, and win there.
   * @param mask See `init({ mask })`. It gets content only: no key of the identity namespace, no session, tags or span
   *   kind, which therefore always stay.
   */
  constructor(exporter: SpanExporter, url: string, resource: Readonly<Record<string, string>>, mask: Mask | undefined) {
    this.#exporter = exporter;
    this.#url = url;
    this.#added = resourceFromAttributes(resource);
    this.#addsNothing = Object.keys(resource).length === 0;
    this.#mask = mask;
  }

  /** Exports edited copies; the spans themselves are left alone. */
  export(spans: ReadableSpan[], done: Done): void {
    const allowed = leaving();
    this.#exporter.export(
      spans.map((span) => this.#edited(allowed.span(span))),
      (result) => {
        if (result.code !== 0) {
          this.failures += 1;
          const why = shownError(result.error);
          // OpenTelemetry reports it to its diagnostic logger, which is silent until somebody sets one.
          warnOnce("export_failed", this.#url, `${spans.length} spans could not be exported to ${this.#url}: ${why}`);
        }
        done(result);
      },
    );
  }

  /** Shuts the real exporter down. */
  shutdown(): Promise<void> {
    return this.#exporter.shutdown();
  }

  /** Flushes the real exporter. */
  async forceFlush(): Promise<void> {
    await this.#exporter.forceFlush?.();
  }

  #edited(span: ReadableSpan): ReadableSpan {
    const resource = this.#resource(span.resource);
    if (this.#mask === undefined) return resource === span.resource ? span : edited(span, { resource });
    const place = `init() on span ${shown(span.name)}`;
    return edited(span, {
      resource,
      attributes: this.#masked(span.attributes, place),
      events: span.events.map((event) => ({ ...event, attributes: this.#masked(event.attributes, place) })),
      links: span.links.map((link) => ({ ...link, attributes: this.#masked(link.attributes, place) })),
      status: this.#status(span.status, place),
    });
  }

  #resource(resource: Resource): Resource {
    if (this.#addsNothing) return resource;
    let merged = this.#merged.get(resource);
    if (merged === undefined) {
      merged = resource.merge(this.#added);
      this.#merged.set(resource, merged);
    }
    return merged;
  }

  #masked(attributes: Attributes | undefined, place: string): Attributes {
    const kept: Attributes = {};
    const content: Attributes = {};
    for (const [key, value] of Object.entries(attributes ?? {})) (alwaysStays(key) ? kept : content)[key] = value;
    const left = masked(content, this.#mask === undefined ? [] : [this.#mask], place);
    // A mask may add attributes, but it cannot name an end user.
    return { ...Object.fromEntries(Object.entries(left).filter(([key]) => !alwaysStays(key))), ...kept };
  }

  #status(status: SpanStatus, place: string): SpanStatus {
    if (status.message === undefined) return status;
    const left = this.#masked({ [STATUS_DESCRIPTION]: status.message }, place)[STATUS_DESCRIPTION];
    return typeof left === "string" ? { code: status.code, message: left } : { code: status.code };
  }
}

/** Exports in batches, or not at all. It stays on the provider; what it exports to can be replaced at any time. */
export class OwnExport implements SpanProcessor {
  #exporter: AddingExporter | undefined;
  #batch: BatchSpanProcessor | undefined;

  /** Exports to `exporter` from now on; `undefined`: to nobody. Returns what was in use, to be shut down. */
  replace(exporter: AddingExporter | undefined): BatchSpanProcessor | undefined {
    const before = this.#batch;
    this.#exporter = exporter;
    this.#batch = exporter === undefined ? undefined : new BatchSpanProcessor(exporter);
    return before;
  }

  /** How many exports of the exporter in use were not accepted. */
  get failures(): number {
    return this.#exporter?.failures ?? 0;
  }

  /** Nothing happens at the start of a span. */
  onStart(): void {}

  /** Queues the span. */
  onEnd(span: ReadableSpan): void {
    this.#batch?.onEnd(span);
  }

  /** Exports what is queued. */
  async forceFlush(): Promise<void> {
    await this.#batch?.forceFlush();
  }

  /** Exports what is queued, then stops. Spans that end later are not exported. */
  async shutdown(): Promise<void> {
    const batch = this.#batch;
    this.#batch = undefined;
    await batch?.shutdown();
  }
}

function alwaysStays(key: string): boolean {
  return NOT_CONTENT.has(key) || isIdentityKey(key);
}

function shownError(error: Error | undefined): string {
  // gRPC and Node report several attempts of one connection without a message of their own.
  const message = error?.message || (error as { code?: unknown } | undefined)?.code || error?.name || "no reason given";
  return String(message).replace(/\s+/g, " ").slice(0, MAX_SHOWN_ERROR);
}
