/** `EndUserSpanProcessor` for pages that use OpenTelemetry-JS already (`@opentelemetry/sdk-trace-web`). */

import { END_USER_NAMESPACE, isIdentityKey } from "../identity/conventions.js";
import type { EndUserId, EndUserMetadata } from "../identity/end-user.js";
import { errorName } from "../identity/refused.js";
import { shown, warnOnce } from "../identity/warnings.js";
import { ClientIdentity, type IdentityOptions, identityAttributes } from "./client-identity.js";

/** What is needed of a span; those of OpenTelemetry-JS 1 and 2 have it. */
interface EndedSpan {
  readonly name: string;
  readonly attributes: Readonly<Record<string, unknown>>;
  /** Of OpenTelemetry-JS 1. */
  readonly parentSpanId?: string | undefined;
  /** Of OpenTelemetry-JS 2. */
  readonly parentSpanContext?: { readonly spanId: string } | undefined;
}

interface StartedSpan {
  setAttribute(key: string, value: string): unknown;
}

/**
 * Puts the end user on every root span of a page. It exports nothing and changes nothing else.
 *
 * ```ts
 * const endUser = new EndUserSpanProcessor({ getEndUser: () => session.user?.id });
 * new WebTracerProvider({ spanProcessors: [endUser, new BatchSpanProcessor(exporter)] });
 * ```
 *
 * A root that names an end user itself keeps it. No method throws.
 */
export class EndUserSpanProcessor {
  readonly #identity: ClientIdentity;

  constructor(options: IdentityOptions = {}) {
    this.#identity = new ClientIdentity(options ?? {}, "new EndUserSpanProcessor()");
  }

  /** Say who uses the page from now on: on login. Spans that are open keep whom they had. */
  setEndUser(endUser: EndUserId, endUserMetadata?: EndUserMetadata): void {
    this.#identity.setEndUser(endUser, endUserMetadata);
  }

  /** Say which session root spans belong to from now on. */
  setSession(sessionId: EndUserId): void {
    this.#identity.setSession(sessionId);
  }

  /** Forget end user and session: on logout. */
  reset(): void {
    this.#identity.reset();
  }

  /** Name the end user of a root span. */
  onStart(span: StartedSpan): void {
    try {
      // The SDK's own type for it hides what it holds.
      const started = span as StartedSpan & EndedSpan;
      if (isChild(started)) return;
      const standing = Object.keys(started.attributes);
      const named = standing.some(isIdentityKey);
      for (const [key, value] of Object.entries(identityAttributes(this.#identity.now()))) {
        if (!(standing.includes(key) || (named && isIdentityKey(key)))) span.setAttribute(key, value);
      }
    } catch (error) {
      warnOnce("internal", errorName(error), `${errorName(error)} while naming the end user of a root span.`);
    }
  }

  /** Say so where a child names an end user, which has no effect: the processor removes it. */
  onEnd(span: EndedSpan): void {
    try {
      if (!isChild(span) || !Object.keys(span.attributes).some(isIdentityKey)) return;
      warnOnce(
        "override_ignored",
        span.name,
        `${END_USER_NAMESPACE} on child ${shown(span.name)} has no effect: the root owns the end user of a trace.`,
      );
    } catch {
      // A warning that cannot be given is no reason to fail.
    }
  }

  /** Nothing is held back. */
  forceFlush(): Promise<void> {
    return Promise.resolve();
  }

  /** Nothing to let go of. */
  shutdown(): Promise<void> {
    return Promise.resolve();
  }
}

function isChild(span: EndedSpan): boolean {
  const parent = span.parentSpanContext?.spanId ?? span.parentSpanId;
  return parent !== undefined && !/^0*$/.test(parent);
}
