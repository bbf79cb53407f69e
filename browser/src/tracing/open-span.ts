/** The one way in which the shim opens a span. */

import {
  type Attributes,
  type Context,
  context as contextApi,
  INVALID_SPAN_CONTEXT,
  type Span,
  SpanStatusCode,
  trace as traceApi,
} from "@opentelemetry/api";
import { isIdentityKey, OPENINFERENCE_SPAN_KIND, SPAN_KIND } from "../identity/conventions.js";
import { errorName } from "../identity/refused.js";
import { shown, warnOnce } from "../identity/warnings.js";
import { type Mask, masked } from "./content.js";
import { type Block, openBlock, settle, validContext, withBlock, withDeclaration } from "./declaring.js";
import type { Declaration, OpenRoot } from "./open-root.js";
import { registry } from "./registry.js";
import { isSetUp, tracer } from "./tracer.js";

/** What a span of the shim is opened with. */
export interface SpanSettings {
  /** `"WORKFLOW"`, `"CHAIN"`, ...; written lower-case and in capitals under its two keys. */
  readonly kind: string;
  /** The call as warnings name it: `trace("chat")`. */
  readonly place: string;
  /** The end user, session and tags that it declares. */
  readonly declared?: Declaration;
  /** Covers the content that the shim captures on this span and on spans opened by `trace()` and `span()` inside it. */
  readonly mask?: Mask | undefined;
  /** Attributes of the application; they are content, so they pass the masks. */
  readonly attributes?: Attributes;
}

/** A span that the shim has opened: started, not yet active anywhere, to be ended once. */
export class OpenSpan {
  /** The OpenTelemetry span; a non-recording one where the trace is sampled out or nothing is set up. */
  readonly span: Span;
  /** The context in which the span is the active one. */
  readonly context: Context;
  readonly #block: Block;
  readonly #ownRoot: boolean;

  constructor(span: Span, context: Context, block: Block, ownRoot: boolean) {
    this.span = span;
    this.context = context;
    this.#block = block;
    this.#ownRoot = ownRoot;
  }

  /** Does some work with the span as the active one. Any number of times. */
  run<T>(work: () => T): T {
    return contextApi.with(this.context, () => {
      if (contextApi.active() !== this.context) sayContextIsLost();
      return work();
    });
  }

  /** Puts captured content on the span, after the masks. */
  put(content: () => Attributes): void {
    if (!this.span.isRecording()) return;
    try {
      this.span.setAttributes(masked(content(), this.#block.masks, this.#block.place));
    } catch (error) {
      sayDropped(this.#block.place, error);
    }
  }

  /** Records what ended the span. A cancellation by an `AbortSignal` is not an error. */
  fail(error: unknown): void {
    recordError(this.span, error);
  }

  /** Ends the span. Calling it again does nothing. Never throws. */
  end(): void {
    if (!this.#block.open) return;
    this.#block.open = false;
    try {
      this.span.end();
    } catch (error) {
      // Some other span processor's error.
      warnOnce("end_failed", this.#block.place, `${errorName(error)} while ending ${this.#block.place}.`);
    } finally {
      if (this.#ownRoot) registry.close(this.span.spanContext());
    }
  }
}

/** Starts a span in the active context and settles what it declares. Never throws. */
export function openSpan(name: string, settings: SpanSettings): OpenSpan {
  const { place, declared = {}, attributes = {} } = settings;
  const active = contextApi.active();
  const parent = validContext(traceApi.getSpan(active));
  const enclosing = parent === undefined ? undefined : openBlock(active, parent.traceId);
  const masks = [...(settings.mask === undefined ? [] : [settings.mask]), ...(enclosing?.masks ?? [])];
  let span = traceApi.wrapSpanContext(INVALID_SPAN_CONTEXT);
  let root: OpenRoot | undefined;
  try {
    const rawIdentityCounts = parent === undefined && declared.endUser === undefined;
    const kept = rawIdentityCounts ? attributes : withoutIdentity(attributes, place);
    const kind = { [SPAN_KIND]: settings.kind.toLowerCase(), [OPENINFERENCE_SPAN_KIND]: settings.kind.toUpperCase() };
    const started = { attributes: { ...masked(kept, masks, place), ...kind } };
    span = tracer().startSpan(name, started, withDeclaration(active, declared));
    root = settle(span, parent, declared, place, enclosing, active);
  } catch (error) {
    // A sampler or another span processor may throw; the work must go on.
    warnOnce("start_failed", place, `${errorName(error)} while opening ${place}.`);
  }
  const block: Block = { traceId: span.spanContext().traceId, place, root, masks, open: true };
  return new OpenSpan(span, withBlock(traceApi.setSpan(active, span), block), block, root?.span === span);
}

/** Records an error on a span as OpenTelemetry does. Never throws. */
export function recordError(span: Span, error: unknown): void {
  try {
    if (!span.isRecording() || (error instanceof Error && error.name === "AbortError")) return;
    span.recordException(error instanceof Error ? error : String(error));
    const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    span.setStatus({ code: SpanStatusCode.ERROR, message });
  } catch {
    // What was thrown may be any object; the application's own error must get through.
    span.setStatus({ code: SpanStatusCode.ERROR, message: errorName(error) });
  }
}

/** The attributes without the identity namespace: a child cannot carry it, and the options come first. */
function withoutIdentity(attributes: Attributes, place: string): Attributes {
  const kept = Object.entries(attributes).filter(([key]) => !isIdentityKey(key));
  if (kept.length === Object.keys(attributes).length) return attributes;
  warnOnce(
    "override_ignored",
    `attributes ${place}`,
    `The identity attributes of ${place} have no effect: only a trace's root span carries the end user, and what ` +
      "endUserId names comes first. Use that instead.",
  );
  return Object.fromEntries(kept);
}

function sayDropped(place: string, error: unknown): void {
  warnOnce("content_refused", place, `Content of ${place} is dropped: reading it threw ${errorName(error)}.`);
}

function sayContextIsLost(): void {
  if (!isSetUp()) return;
  warnOnce(
    "no_context_manager",
    "",
    "OpenTelemetry has no context manager, so what runs inside trace() or span() does not know about it: spans become " +
      "traces of their own. Call register() on the TracerProvider, or set one with " +
      "context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable()).",
  );
}

/** The name; one that is not text is shown as its type, with a warning. */
export function checkedName(name: unknown, place: string): string {
  if (typeof name === "string") return name;
  warnOnce("bad_argument", `${place} name`, `${place} needs a string as name, not a ${typeof name}.`);
  return `<${typeof name}>`;
}

/** The kind, or with a warning `fallback`. */
export function checkedKind(kind: unknown, fallback: string, place: string): string {
  if (kind === undefined) return fallback;
  if (typeof kind === "string" && kind.trim() !== "") return kind;
  warnOnce("bad_argument", `${place} kind`, `kind of ${place} must be a string such as ${shown(fallback)}.`);
  return fallback;
}

/** The mask; one that cannot be called drops all content, with a warning. */
export function checkedMask(mask: unknown, place: string): Mask | undefined {
  if (mask === undefined || mask === null) return undefined;
  if (typeof mask === "function") return mask as Mask;
  warnOnce("bad_argument", `${place} mask`, `mask of ${place} must be a function; content is dropped.`);
  return () => undefined;
}
