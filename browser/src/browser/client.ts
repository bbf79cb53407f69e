/** `Neatlogs`: traces from the code of a web page, each under the end user that it served. */

import { encodeTags, PROJECT, TAGS } from "../identity/conventions.js";
import type { EndUserId, EndUserMetadata } from "../identity/end-user.js";
import { errorName, RefusedError, reason } from "../identity/refused.js";
import { VERSION } from "../identity/version.js";
import { shown, warnOnce } from "../identity/warnings.js";
import {
  ClientIdentity,
  type EndUserInput,
  type IdentityOptions,
  identityAttributes,
  type Settled,
  settle,
} from "./client-identity.js";
import { Delivery, type TrackResult } from "./delivery.js";
import { NeatlogsError } from "./errors.js";
import type { SpanInput } from "./fields.js";
import { newSpanId, newTraceId, traceparent } from "./ids.js";
import { envelope } from "./otlp.js";
import { watchPage } from "./page-life.js";
import { spansOf } from "./spans.js";

/** Where the processor receives OTLP/HTTP unless told otherwise. */
export const DEFAULT_ENDPOINT = "http://localhost:4318";

const SCOPE = { name: "neatlogs-otel/browser", version: VERSION };

/** What a client is made with. */
export interface NeatlogsOptions extends IdentityOptions {
  /** A browser key of the processor (`--browser-keys-file`), sent as `Authorization: Bearer`. Everybody can read it. */
  apiKey?: string | undefined;
  /** Becomes the resource attribute `neatlogs.project`. */
  project?: string | undefined;
  /** `service.name`; the project unless given. */
  serviceName?: string | undefined;
  /** Where the processor receives OTLP/HTTP; `http://localhost:4318` unless given. */
  endpoint?: string | undefined;
  /** Let `fetch` of a started trace tell one's own server which trace it works for. Off unless `true`. */
  traceparent?: boolean | undefined;
  /** `false` sends nothing; every call succeeds. */
  enabled?: boolean | undefined;
  /** Called with what went wrong; `console.warn` unless given. What it throws is ignored. */
  onError?: ((error: NeatlogsError) => void) | undefined;
}

/** A trace: its root span, and what it says of the end user over the client's default. */
export interface TraceInput extends SpanInput, EndUserInput {
  sessionId?: EndUserId;
  tags?: readonly string[] | string | undefined;
}

/** A trace that is open until `finish()`. */
export interface StartedTrace {
  /** W3C trace id. */
  readonly traceId: string;
  /** Of the root span. */
  readonly spanId: string;
  /** The header that makes spans of a server children of this trace's root. */
  readonly traceparent: string;
  /**
   * `fetch`, which on calls to the page's own origin sends `traceparent`, if the client's option of this name is `true`.
   * It can be passed on by itself, as to a library that takes a `fetch`.
   */
  readonly fetch: typeof fetch;
  /** End the trace and send it. Fields given here win over those it was started with. Only the first call counts. */
  finish(final?: Partial<TraceInput>): Promise<TrackResult>;
}

/**
 * A client for web pages.
 *
 * No method throws and no promise rejects. A promise of a trace resolves when the processor has answered, or when the
 * trace was given up after some ten seconds of trying, or, offline, when the network is back: await it only to look at
 * the result.
 */
export class Neatlogs {
  readonly #identity: ClientIdentity;
  readonly #onError: ((error: NeatlogsError) => void) | undefined;
  readonly #delivery: Delivery | undefined;
  readonly #propagate: boolean;
  readonly #open = new Set<Started>();
  readonly #unwatch: () => void;
  #idle: string | undefined;

  constructor(options: NeatlogsOptions = {}) {
    const given: NeatlogsOptions = copied(options) ?? {};
    this.#onError = typeof given.onError === "function" ? given.onError : undefined;
    this.#identity = new ClientIdentity(given, "new Neatlogs()");
    this.#propagate = given.traceparent === true;
    if (given.enabled !== false) this.#delivery = this.#deliveryOf(given);
    this.#unwatch = watchPage({
      leave: (how) => {
        // A page that ends takes its open traces with it: what they have so far is sent.
        if (how === "ended") for (const started of [...this.#open]) started.abandon();
        this.#delivery?.leave(how);
      },
      wake: () => this.#delivery?.wake(),
    });
  }

  /** Send one AI interaction; its `kind` is `llm` unless given. */
  trackAI(interaction: TraceInput): Promise<TrackResult> {
    const given = copied(interaction);
    return this.#sendNew(given && { ...given, kind: given.kind ?? "llm" });
  }

  /** Send a trace: a root span and, nested, its children. */
  trace(trace: TraceInput): Promise<TrackResult> {
    return this.#sendNew(copied(trace));
  }

  /** Open a trace. Who it belongs to is settled now: a login or logout meanwhile does not change it. */
  startTrace(initial: TraceInput): StartedTrace {
    const settled = this.#identity.now();
    const started: Started = new Started(copied(initial), this.#propagate, (trace) => {
      this.#open.delete(started);
      return this.#send(trace, settled, started.traceId, started.spanId);
    });
    this.#open.add(started);
    return started;
  }

  /**
   * Say who uses the page from now on: on login. Traces that are open or were sent keep whom they had.
   *
   * @param endUser The id; `null`, `undefined` and blank text forget the end user, as `reset()` does.
   * @param endUserMetadata A JSON object.
   */
  setEndUser(endUser: EndUserId, endUserMetadata?: EndUserMetadata): void {
    this.#identity.setEndUser(endUser, endUserMetadata);
  }

  /** Say which session traces belong to from now on. */
  setSession(sessionId: EndUserId): void {
    this.#identity.setSession(sessionId);
  }

  /** Forget end user and session: on logout. Traces that are open or were sent keep whom they had. */
  reset(): void {
    this.#identity.reset();
  }

  /** Resolves when nothing waits to be sent. */
  flush(): Promise<void> {
    return this.#delivery?.flush() ?? Promise.resolve();
  }

  /** Send what waits, then let go of the page. Traces afterwards are not sent. */
  async shutdown(): Promise<void> {
    this.#idle = "the client was shut down";
    this.#unwatch();
    await this.flush();
  }

  #sendNew(trace: TraceInput | undefined): Promise<TrackResult> {
    return this.#send(trace, this.#identity.now(), newTraceId(), newSpanId());
  }

  async #send(trace: TraceInput | undefined, before: Settled, traceId: string, spanId: string): Promise<TrackResult> {
    try {
      if (this.#idle !== undefined) throw new RefusedError(this.#idle);
      if (trace === undefined) throw new RefusedError("it is not an object");
      const settled = settle(trace, before, placeOf(trace));
      const spans = spansOf(trace, {
        traceId,
        spanId,
        own: { ...identityAttributes(settled), [TAGS]: tagsOf(trace) },
        now: Date.now(),
      });
      return (await this.#delivery?.send({ traceId, spans })) ?? { ok: true };
    } catch (error) {
      const report = new NeatlogsError(`A trace was not sent, because ${reason(error)}.`, "usage", 1);
      this.#report(report);
      return { ok: false, spans: 0, error: report.message };
    }
  }

  #deliveryOf(options: NeatlogsOptions): Delivery | undefined {
    const url = tracesUrl(options.endpoint);
    if (url === undefined) {
      this.#idle = "endpoint of new Neatlogs() is not an http or https URL";
      this.#report(new NeatlogsError(`Nothing will be sent, because ${this.#idle}.`, "usage"));
      return undefined;
    }
    const headers: Record<string, string> = { "content-type": "application/json" };
    const key = typeof options.apiKey === "string" ? options.apiKey.trim() : "";
    if (/^[\x21-\x7e]+$/.test(key)) headers.authorization = `Bearer ${key}`;
    else if (key) this.#report(new NeatlogsError("apiKey holds characters that no key has; it is not sent.", "usage"));
    const { project, serviceName } = options;
    const resource = {
      "service.name": serviceName || project || "unknown_service",
      [PROJECT]: project || undefined,
      "telemetry.sdk.language": "webjs",
    };
    return new Delivery(url, headers, envelope(resource, SCOPE), (error) => this.#report(error));
  }

  #report(error: NeatlogsError): void {
    try {
      if (this.#onError !== undefined) this.#onError(error);
      else console.warn(`neatlogs-otel: ${error.message}`);
    } catch (failure) {
      warnOnce("on_error", "threw", `onError of new Neatlogs() threw ${errorName(failure)}.`);
    }
  }
}

/** See `StartedTrace`. */
class Started implements StartedTrace {
  readonly traceId = newTraceId();
  readonly spanId = newSpanId();
  readonly fetch: typeof fetch;
  readonly #initial: TraceInput | undefined;
  readonly #send: (trace: TraceInput | undefined) => Promise<TrackResult>;
  readonly #start = Date.now();
  // The clock of the wall may be set while a trace is open; this one runs on.
  readonly #opened = performance.now();
  #finished: Promise<TrackResult> | undefined;

  constructor(
    initial: TraceInput | undefined,
    propagate: boolean,
    send: (trace: TraceInput | undefined) => Promise<TrackResult>,
  ) {
    this.#initial = initial;
    this.#send = send;
    this.fetch = (input, init) => fetch(input, propagate ? this.#withTraceparent(input, init) : init);
  }

  get traceparent(): string {
    return traceparent(this.traceId, this.spanId);
  }

  finish(final?: Partial<TraceInput>): Promise<TrackResult> {
    if (this.#finished === undefined) this.#finished = this.#send(this.#initial && this.#merged(copied(final) ?? {}));
    else warnOnce("finished_twice", "", "finish() of a started trace was called again, which has no effect.");
    return this.#finished;
  }

  /** End it because the page ends; a log of it says that nobody finished it. */
  abandon(): void {
    const logs = Array.isArray(this.#initial?.logs) ? this.#initial.logs : [];
    void this.finish({ logs: [...logs, { level: "warn", message: "the page ended before finish()" }] });
  }

  #merged(final: Partial<TraceInput>): TraceInput {
    const merged: TraceInput = { name: "", ...this.#initial };
    // An end user who is named late comes with their own metadata, not with those of whoever was named before.
    if (final.endUser !== undefined || final.endUserId !== undefined) {
      for (const key of ["endUser", "endUserId", "endUserMetadata"] as const) delete merged[key];
    }
    Object.assign(merged, Object.fromEntries(Object.entries(final).filter(([, value]) => value !== undefined)));
    if (isObject(merged.attributes)) merged.attributes = { ...this.#initial?.attributes, ...final.attributes };
    merged.start ??= this.#start;
    if (merged.duration_ms === undefined) merged.end ??= this.#start + performance.now() - this.#opened;
    return merged;
  }

  #withTraceparent(input: RequestInfo | URL, init: RequestInit | undefined): RequestInit | undefined {
    const isRequest = typeof input === "object" && "headers" in input;
    const base = globalThis.location?.href;
    try {
      const url = new URL(isRequest ? input.url : input, base);
      if (base === undefined || url.origin !== new URL(base).origin) return init;
      const headers = new Headers(init?.headers ?? (isRequest ? input.headers : undefined));
      if (!headers.has("traceparent")) headers.set("traceparent", this.traceparent);
      return { ...init, headers };
    } catch {
      // Whatever is wrong with it, fetch itself says so.
      return init;
    }
  }
}

function placeOf(trace: TraceInput): string {
  return `trace ${shown(trace.name)}`;
}

function tagsOf(trace: TraceInput): string | undefined {
  try {
    return encodeTags(trace.tags);
  } catch (error) {
    warnOnce("tags_refused", placeOf(trace), `tags of ${placeOf(trace)} are refused, because ${reason(error)}.`);
    return undefined;
  }
}

/** Where OTLP/HTTP takes traces; `undefined` where the endpoint is none. */
function tracesUrl(endpoint: unknown): string | undefined {
  try {
    const url = new URL(String(endpoint || DEFAULT_ENDPOINT));
    if (!/^https?:$/.test(url.protocol)) return undefined;
    if (!url.pathname.endsWith("/v1/traces")) url.pathname = `${url.pathname.replace(/\/+$/, "")}/v1/traces`;
    return url.href;
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

/** What can be read of an object that a page passed; `undefined` for anything else. */
function copied<T extends object>(given: T | undefined): T | undefined {
  if (!isObject(given)) return undefined;
  const copy: Partial<T> = {};
  for (const key of Object.keys(given) as (keyof T)[]) {
    try {
      copy[key] = given[key];
    } catch {
      warnOnce("unreadable", String(key), `${shown(key)} threw when it was read, and is left out.`);
    }
  }
  return copy as T;
}
