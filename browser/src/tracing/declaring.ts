/** Declaring an end user at a span: which root takes it, and what is said when none does. */

import {
  type Context,
  context as contextApi,
  createContextKey,
  type Span,
  type SpanContext,
  TraceFlags,
  trace as traceApi,
} from "@opentelemetry/api";
import { TAGS } from "../identity/conventions.js";
import { type EndUser, type EndUserId, type EndUserMetadata, endUserFrom, resolve } from "../identity/end-user.js";
import { processDefault } from "../identity/process-default.js";
import { errorName } from "../identity/refused.js";
import { shown, warnOnce } from "../identity/warnings.js";
import type { Mask } from "./content.js";
import { identified } from "./identify.js";
import { attributesOf, type Declaration, OpenRoot, type Outcome, saysNothing } from "./open-root.js";
import { findOpenRoot, registry } from "./registry.js";
import { isSetUp } from "./tracer.js";

const DECLARED = createContextKey("neatlogs-otel declared");
const BLOCK = createContextKey("neatlogs-otel block");

const CAUSES: Readonly<Partial<Record<Outcome, string>>> = {
  outranked: "another end user (or session) was named first, and the first stays. Name it in one place",
  ended:
    "the root span of this trace has ended. Name the end user while it is open, or open a trace of its own for work " +
    "that outlives it",
  entry:
    "this trace was started by another service, which owns the end user. Name it there, or use " +
    'new EndUserSpanProcessor({ roots: "entry" }) here',
  unknown:
    "the root span of this trace is not known: its TracerProvider has no EndUserSpanProcessor. Add one: " +
    "new NodeTracerProvider({ spanProcessors: [new EndUserSpanProcessor(), ...] })",
  ambiguous:
    "several requests under one incoming traceparent are open, and this span is not directly under one of them. Call " +
    "setEndUser() in the request's handler itself",
};

/**
 * The context in which to start a span that declares.
 *
 * The span processor reads it at the span's start, so that a root carries one identity from the beginning, instead of
 * the default first. The context is never made the active one: children do not see it.
 */
export function withDeclaration(context: Context, declared: Declaration): Context {
  return saysNothing(declared) ? context : context.setValue(DECLARED, declared);
}

/** The declaration that a span is started with. */
export function declarationIn(context: Context): Declaration | undefined {
  return context.getValue(DECLARED) as Declaration | undefined;
}

/** An open `trace()` or `span()`, as its context carries it. */
export interface Block {
  /** Its trace. */
  readonly traceId: string;
  /** The call as a warning names it. */
  readonly place: string;
  /** The trace's local root, where it is known. */
  readonly root: OpenRoot | undefined;
  /** What covers the content captured inside, the innermost first. */
  readonly masks: readonly Mask[];
  /** Whether its span has not ended; a context may live on in a background task. */
  open: boolean;
}

/** The context with a block in it. */
export function withBlock(context: Context, block: Block): Context {
  return context.setValue(BLOCK, block);
}

/** The innermost `trace()` or `span()` of this trace that is open in a context. */
export function openBlock(context: Context, traceId: string): Block | undefined {
  const found = context.getValue(BLOCK) as Block | undefined;
  return found?.open && found.traceId === traceId ? found : undefined;
}

/**
 * Brings a declaration made by opening `span` to the root that owns the trace's identity.
 *
 * @param span The span just opened with `withDeclaration(context, declared)`.
 * @param parent Its parent's span context; `undefined` for a root span.
 * @param declared What is declared.
 * @param place The call as a warning names it.
 * @param enclosing The open `trace()` or `span()` of the same trace around it.
 * @param context The context in which the span was opened.
 * @returns The local root of the trace, where it is known.
 */
export function settle(
  span: Span,
  parent: SpanContext | undefined,
  declared: Declaration,
  place: string,
  enclosing: Block | undefined,
  context: Context,
): OpenRoot | undefined {
  if (!span.isRecording()) return undefined; // Sampled out: there is nothing to say it on.
  if (parent === undefined) return settleRoot(span, declared, context);
  if (enclosing !== undefined) {
    if (!saysNothing(declared)) {
      sayNested(place, enclosing, declared);
      keepTags(span, declared);
    }
    return enclosing.root;
  }
  const found = findOpenRoot(span.spanContext(), parent, undefined);
  if (found instanceof OpenRoot && found.spanId === span.spanContext().spanId && found.takesIdentity) {
    return found; // The span processor has settled it at the start.
  }
  if (!saysNothing(declared)) {
    let outcome = declareAt(found, declared, parent.traceId);
    if ((outcome === "unknown" || outcome === "ended") && parent.isRemote) outcome = "entry";
    say(outcome, place, found);
    if (!["taken", "repeated", "outranked"].includes(outcome)) keepTags(span, declared);
  }
  return found instanceof OpenRoot ? found : undefined;
}

/**
 * Names the end user of the trace that is open here, when it becomes known after the trace was opened.
 *
 *     const user = await authenticate(request);
 *     setEndUser(user.id, { plan: user.plan });
 *
 * The identity goes to the trace's root span, if that is open in this process. An id that was named before by
 * `trace()`, `span()` or `setEndUser()` stays; one of `identify()` or `init()` is replaced. Never throws.
 *
 * @param endUserId A string, an integer, a bigint, or a function that returns one. `undefined`, `null` and blank text
 *   name nobody.
 * @param endUserMetadata A JSON object, or a function that returns one.
 * @returns Whether the trace carries this identity now. `false` comes with a warning that says why, except where the
 *   trace is not recorded (sampled out).
 */
export function setEndUser(
  endUserId: EndUserId | (() => EndUserId),
  endUserMetadata?: EndUserMetadata | (() => EndUserMetadata),
): boolean {
  try {
    return nameEndUser(endUserId, endUserMetadata);
  } catch (error) {
    warnOnce("internal", `setEndUser ${errorName(error)}`, `${errorName(error)} in setEndUser().`);
    return false;
  }
}

/**
 * The end user of the trace that is open here; where none is open, the one that a trace opened here would get.
 *
 * @returns `undefined` where there is none, and where this process does not know it: the trace is not recorded (sampled
 *   out), was started by another service, or its provider has no `EndUserSpanProcessor`.
 */
export function currentEndUser(): EndUser | undefined {
  const context = contextApi.active();
  const span = traceApi.getSpan(context);
  const here = validContext(span);
  let standing: EndUser | undefined;
  if (here !== undefined) {
    const found = findOpenRoot(here, parentOf(span), openBlock(context, here.traceId)?.root);
    standing = found instanceof OpenRoot ? found.standing : undefined;
  } else {
    standing = resolve([identified(context)?.endUser, processDefault().endUser]);
  }
  return standing?.id === undefined ? undefined : standing;
}

/** The span context of a span, where it is a valid one. */
export function validContext(span: Span | undefined): SpanContext | undefined {
  const found = span?.spanContext();
  return found !== undefined && traceApi.isSpanContextValid(found) ? found : undefined;
}

// Constants that serve many calls.

/** Two different end users that calls have named, at most: enough to know of any id that there is another one. */
const named = new Set<string>();

/** Remembers that a call, not a constant, named an end user. */
export function noteNamed(endUser: EndUser | undefined): void {
  if (endUser?.id !== undefined && named.size < 2) named.add(endUser.id);
}

/** Whether calls in this process have named another end user than this one. */
export function othersNamed(endUserId: string): boolean {
  return named.size > (named.has(endUserId) ? 1 : 0);
}

/** Forgets which end users were named; for tests. */
export function forgetNamed(): void {
  named.clear();
}

function settleRoot(span: Span, declared: Declaration, context: Context): OpenRoot {
  const [root, isNew] = registry.open(span, true, true);
  if (isNew) {
    // The provider has no span processor of ours; a root that the shim opens itself needs none.
    const block = identified(context);
    block?.take();
    root.start(declared, block, processDefault());
  }
  return root;
}

function nameEndUser(endUserId: unknown, endUserMetadata: unknown): boolean {
  const context = contextApi.active();
  const span = traceApi.getSpan(context);
  const here = validContext(span);
  const name = (span as { name?: unknown } | undefined)?.name;
  const place = typeof name === "string" && name !== "" ? `setEndUser() at span ${shown(name)}` : "setEndUser()";
  let found: OpenRoot | Outcome = "unknown";
  if (span !== undefined && here !== undefined) {
    found = findOpenRoot(here, parentOf(span), openBlock(context, here.traceId)?.root);
    if (!(found instanceof OpenRoot) && !span.isRecording() && !isSdkSpan(span)) {
      // Sampled out, here or by the service that started the trace.
      if ((here.traceFlags & TraceFlags.SAMPLED) === 0) return false;
      if (here.isRemote) found = "entry";
    }
  }
  const endUser = endUserFrom("set_end_user", endUserId, endUserMetadata, place);
  if (endUser === undefined) return false;
  if (here === undefined) {
    if (isSetUp()) {
      warnOnce(
        "no_open_trace",
        place,
        "setEndUser() had no effect: no trace is open here. Call it inside trace() or an instrumented request, or use " +
          "identify() around the code that opens the trace.",
      );
    }
    return false;
  }
  const outcome = declareAt(found, { endUser }, here.traceId);
  say(outcome, place, found);
  if (outcome === "repeated") return true;
  if (!(found instanceof OpenRoot) || outcome !== "taken") return false;
  noteNamed(endUser);
  const { standing, span: root } = found;
  // The SDK drops what exceeds its count limit; the warning comes when the root ends.
  if (root !== undefined && isSdkSpan(root) && found.isMissingIn(attributesOf(root))) return false;
  return standing !== undefined && !standing.refused && (endUser.id === undefined || endUser.id === standing.id);
}

function declareAt(found: OpenRoot | Outcome, declared: Declaration, traceId: string): Outcome {
  if (found instanceof OpenRoot) return found.declare(declared);
  if (found !== "ended" || declared.endUser === undefined || declared.sessionId !== undefined) return found;
  // A background task that names the end user of its request again: nothing is lost.
  return declared.endUser.sameAs(registry.endedWith(traceId)) ? "repeated" : found;
}

function say(outcome: Outcome, place: string, found: OpenRoot | Outcome): void {
  const cause = CAUSES[outcome];
  if (cause === undefined) return;
  const at = found instanceof OpenRoot ? ` (at span ${shown(found.name)})` : "";
  warnOnce("override_ignored", `${outcome} ${place}`, `The end user named by ${place} has no effect${at}: ${cause}.`);
}

function sayNested(place: string, outer: Block, declared: Declaration): void {
  const repeats = declared.endUser === undefined || declared.endUser.sameAs(outer.root?.standing);
  if (repeats && (declared.sessionId === undefined || outer.root?.sessionId === declared.sessionId)) return;
  warnOnce(
    "override_ignored",
    `nested ${place}`,
    `The end user (or session) named by ${place} has no effect: ${outer.place} is already open around it, and a trace ` +
      "has one end user. Name it on the outermost one, or call setEndUser() when it becomes known late.",
  );
}

function keepTags(span: Span, declared: Declaration): void {
  if (declared.tags !== undefined) span.setAttribute(TAGS, declared.tags);
}

function parentOf(span: Span | undefined): SpanContext | undefined {
  return (span as { parentSpanContext?: SpanContext } | undefined)?.parentSpanContext;
}

/** An ended span of the SDK does not record either, and is not one that was never sampled. */
function isSdkSpan(span: Span): boolean {
  return "attributes" in span;
}
