/** `EndUserSpanProcessor`: gives each local root its end user, and keeps the registry of open local roots. */

import { type Context, type Span, type SpanContext, trace as traceApi } from "@opentelemetry/api";
import type { ReadableSpan, SpanProcessor } from "@opentelemetry/sdk-trace-base";
import { processDefault } from "../identity/process-default.js";
import { errorName } from "../identity/refused.js";
import { shown, warnOnce } from "../identity/warnings.js";
import { declarationIn } from "./declaring.js";
import { identified } from "./identify.js";
import { leaving } from "./leaving.js";
import { registry } from "./registry.js";

/** Which spans carry identity. */
export type Roots = "trace" | "entry";

/** What `EndUserSpanProcessor` takes. */
export interface EndUserSpanProcessorOptions {
  /**
   * `"trace"` (the default): only root spans carry identity. `"entry"`: also entry spans (children whose parent is
   * remote), for a service behind a gateway that starts the traces; the processor then needs the same setting.
   */
  readonly roots?: Roots;
}

/**
 * Adds the end user to the local roots of a `TracerProvider`; exports nothing and changes nothing else.
 *
 * Add it to any provider:
 *
 *     new NodeTracerProvider({ spanProcessors: [new EndUserSpanProcessor(), new BatchSpanProcessor(exporter)] })
 *
 * A root span opened by anyone (an HTTP instrumentation, say) then carries the end user of `identify()` or `init()`
 * from its start, and `trace()`, `span()` and `setEndUser()` can find it while it is open. For a child span both hooks
 * return at once.
 *
 * @throws TypeError `roots` is something else.
 */
export class EndUserSpanProcessor implements SpanProcessor {
  /** How many were made in this process: a provider does not say which span processors it has. */
  static #made = 0;
  /** @internal */
  static get made(): number {
    return EndUserSpanProcessor.#made;
  }

  /** @internal Changed by a later `init()`. */
  entry: boolean;

  constructor(options: EndUserSpanProcessorOptions = {}) {
    this.entry = checkedRoots(options.roots) === "entry";
    EndUserSpanProcessor.#made += 1;
  }

  /** Settles the identity of a local root. */
  onStart(span: Span, parentContext: Context): void {
    const parent = parentIn(span, parentContext);
    if (parent !== undefined && !parent.isRemote) return;
    try {
      this.#open(span, parentContext, parent === undefined);
    } catch (error) {
      // An error of ours must not cost the application its span.
      const name = errorName(error);
      warnOnce("internal", `onStart ${name}`, `${name} while naming the end user of a root span.`);
    }
  }

  /** Takes a local root out of the registry, and says so if its identity was lost on the way. */
  onEnd(span: ReadableSpan): void {
    // A child is not in the registry; to look there costs no more than to find out that it is one.
    const root = registry.close(span.spanContext());
    if (root?.takesIdentity) warnOfRawIdentity(span);
    if (root?.isMissingIn(span.attributes)) {
      warnOnce(
        "identity_evicted",
        span.name,
        `Span ${shown(span.name)} lost its end user: it has more attributes than the provider's limit ` +
          "(OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT), and the SDK drops what comes late. Raise the limit, or name the end user " +
          "when the trace is opened.",
      );
    }
  }

  /** Nothing is held back, so there is nothing to flush. */
  forceFlush(): Promise<void> {
    return Promise.resolve();
  }

  /** Nothing is held, so there is nothing to let go of. */
  shutdown(): Promise<void> {
    return Promise.resolve();
  }

  #open(span: Span, parentContext: Context, isRoot: boolean): void {
    const [root, isNew] = registry.open(span, isRoot, isRoot || this.entry);
    if (!isNew) {
      // Another of our span processors has seen the span; the more permissive setting of the two holds.
      if (root.takesIdentity || !this.entry) return;
      root.takesIdentity = true;
    }
    const block = identified(parentContext);
    if (!root.takesIdentity) {
      if (block !== undefined && !block.isEmpty) {
        warnOnce(
          "entry_span",
          root.name,
          `identify() has no effect on span ${shown(root.name)}: its trace was started by another service, which owns ` +
            'the end user. Name it there, or use new EndUserSpanProcessor({ roots: "entry" }).',
        );
      }
      return;
    }
    block?.take();
    root.start(declarationIn(parentContext), block, processDefault());
  }
}

/** Says so where a span has ended with identity that may not leave: an attribute set by hand since its start. */
function warnOfRawIdentity(span: ReadableSpan): void {
  if (leaving().attributes(span.attributes) === span.attributes) return;
  warnOnce(
    "raw_identity",
    span.name,
    `Span ${shown(span.name)} has identity attributes that were set by hand and may not leave like this. Exporters of ` +
      "neatlogs-otel and the processor see to it; another exporter sends them as they are. Call setEndUser() instead.",
  );
}

/** `roots`, with its default. @throws TypeError It is neither. */
export function checkedRoots(roots: unknown): Roots {
  if (roots === undefined || roots === "trace" || roots === "entry") return roots ?? "trace";
  throw new TypeError('roots must be "trace" or "entry"');
}

/** A span's parent. Before its version 2 the SDK kept only the parent's id on the span, not whether it is remote. */
function parentIn(span: Span, parentContext: Context): SpanContext | undefined {
  const parent =
    "parentSpanId" in span
      ? traceApi.getSpanContext(parentContext)
      : (span as { parentSpanContext?: SpanContext }).parentSpanContext;
  return parent !== undefined && traceApi.isSpanContextValid(parent) ? parent : undefined;
}
