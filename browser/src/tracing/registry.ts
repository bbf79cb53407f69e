/**
 * The open local roots of this process, and which of them a declaration addresses.
 *
 * One registry serves all our span processors, because the span that declares an end user and the local root that takes
 * it may come from different providers. It is bounded and holds spans weakly: a span that is never ended costs nothing
 * once it is gone, and little before.
 */

import type { Span, SpanContext } from "@opentelemetry/api";
import type { EndUser } from "../identity/end-user.js";
import { warnOnce } from "../identity/warnings.js";
import { OpenRoot, type Outcome } from "./open-root.js";

export const MAX_OPEN_ROOTS = 10_000;
/** How many ended traces are remembered, so that a warning can tell "ended" from "never seen". */
const MAX_ENDED_TRACES = 1_000;

/** Open local roots by trace; several of one trace are entry spans under one remote parent. */
class Registry {
  readonly #byTrace = new Map<string, Map<string, OpenRoot>>();
  readonly #ended = new Map<string, EndUser | undefined>();
  readonly #collected = new FinalizationRegistry<OpenRoot>((root) => {
    if (this.#byTrace.get(root.traceId)?.get(root.spanId) === root) this.#remove(root.traceId, root.spanId);
  });
  #size = 0;

  /** How many local roots are open. */
  get size(): number {
    return this.#size;
  }

  /** Registers a local root. Returns it, and whether it is new (several span processors may see one span). */
  open(span: Span, isRoot: boolean, takesIdentity: boolean): [root: OpenRoot, isNew: boolean] {
    const { traceId, spanId } = span.spanContext();
    const roots = this.#byTrace.get(traceId) ?? new Map<string, OpenRoot>();
    const known = roots.get(spanId);
    // Ids repeat where they are not random, in tests for instance; then the newer span counts.
    if (known !== undefined && known.span === span) return [known, false];
    const root = new OpenRoot(span, isRoot, takesIdentity);
    this.#collected.register(span, root, root);
    roots.set(spanId, root);
    this.#byTrace.set(traceId, roots);
    if (known === undefined) this.#size += 1;
    if (this.#size > MAX_OPEN_ROOTS) this.#forgetOldest();
    return [root, true];
  }

  /** Takes a local root out, because it ends. `undefined` where it is not there (any more). */
  close(context: SpanContext): OpenRoot | undefined {
    const root = this.#remove(context.traceId, context.spanId);
    if (root === undefined) return undefined;
    this.#collected.unregister(root);
    this.#ended.delete(root.traceId);
    this.#ended.set(root.traceId, root.standing);
    if (this.#ended.size > MAX_ENDED_TRACES) deleteFirst(this.#ended);
    return root;
  }

  /** The open local roots of a trace. */
  ofTrace(traceId: string): OpenRoot[] {
    return [...(this.#byTrace.get(traceId)?.values() ?? [])];
  }

  /** Whether a local root of this trace has ended lately. */
  hasEnded(traceId: string): boolean {
    return this.#ended.has(traceId);
  }

  /** The end user of a local root of this trace that has ended lately. */
  endedWith(traceId: string): EndUser | undefined {
    return this.#ended.get(traceId);
  }

  #forgetOldest(): void {
    while (this.#size > MAX_OPEN_ROOTS) {
      const oldest = this.#byTrace.values().next().value;
      this.#size -= oldest?.size ?? 0;
      deleteFirst(this.#byTrace);
    }
    warnOnce(
      "registry_full",
      "",
      `More than ${MAX_OPEN_ROOTS} traces are open at once; the oldest can no longer be given an end user by ` +
        "setEndUser(). Are there root spans that are never ended?",
    );
  }

  #remove(traceId: string, spanId: string): OpenRoot | undefined {
    const roots = this.#byTrace.get(traceId);
    const root = roots?.get(spanId);
    if (roots === undefined || root === undefined) return undefined;
    roots.delete(spanId);
    this.#size -= 1;
    if (roots.size === 0) this.#byTrace.delete(traceId);
    return root;
  }
}

export const registry = new Registry();

/**
 * The open local root that a declaration made at a span addresses.
 *
 * @param near The span at which it is made.
 * @param parent Its direct parent.
 * @param remembered The local root that an enclosing `trace()` or `span()` of this context has found, if any.
 * @returns The trace's open root span; else its only open entry span; else, of several, the one that is `near`,
 *   `parent` or `remembered`. Otherwise `"ended"`, `"unknown"` or `"ambiguous"`.
 */
export function findOpenRoot(
  near: SpanContext,
  parent: SpanContext | undefined,
  remembered: OpenRoot | undefined,
): OpenRoot | Outcome {
  const roots = registry.ofTrace(near.traceId);
  const [first] = roots;
  if (first === undefined) return registry.hasEnded(near.traceId) ? "ended" : "unknown";
  const own = roots.find((root) => root.isRoot);
  if (own !== undefined) return own;
  if (roots.length === 1) return first;
  const ids = [near.spanId, parent?.spanId];
  return roots.find((root) => ids.includes(root.spanId) || root === remembered) ?? "ambiguous";
}

function deleteFirst<K, V>(map: Map<K, V>): void {
  const first = map.keys().next();
  if (!first.done) map.delete(first.value);
}
