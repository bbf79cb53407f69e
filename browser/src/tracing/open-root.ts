/** One open local root: the claims made on it by rank, and the identity they come to on its span. */

import type { Attributes, AttributeValue, Span } from "@opentelemetry/api";
import {
  END_USER_ID,
  END_USER_METADATA,
  END_USER_SOURCE,
  encodeTags,
  isBlank,
  RefusedError,
  SESSION_ID,
  TAGS,
  textOf,
} from "../identity/conventions.js";
import { EndUser, RESOURCE_RANK, refusal, resolve, TOP_RANK, warnMetadata } from "../identity/end-user.js";
import { autoSessionId, type ProcessDefault } from "../identity/process-default.js";
import { shown, warnOnce } from "../identity/warnings.js";
import type { Identified } from "./identify.js";
import { leaving } from "./leaving.js";

/** What `trace()`, `span()` or `setEndUser()` says about the trace. */
export interface Declaration {
  readonly endUser?: EndUser | undefined;
  readonly sessionId?: string | undefined;
  readonly tags?: string | undefined;
}

/** Whether a declaration says nothing. */
export function saysNothing(declared: Declaration): boolean {
  return declared.endUser === undefined && declared.sessionId === undefined && declared.tags === undefined;
}

/**
 * What became of a declaration: `repeated`, it says what already stands; `outranked`, something of the same rank stands
 * already; `entry`, the local root is an entry span and may not carry identity; `unknown`, no open local root is known
 * for this trace; `ambiguous`, several entry spans of one trace are open.
 */
export type Outcome = "taken" | "repeated" | "outranked" | "ended" | "entry" | "unknown" | "ambiguous";

const NO_ATTRIBUTES: Readonly<Attributes> = Object.freeze({});
const DEFAULT_RANK = 1;
const IDENTIFY_RANK = 2;

/** A local root that has not ended. */
export class OpenRoot {
  readonly traceId: string;
  readonly spanId: string;
  readonly name: string;
  /** A root span; otherwise an entry span. */
  readonly isRoot: boolean;
  /** Whether it may carry identity: a root span, or an entry span under `roots: "entry"`. */
  takesIdentity: boolean;
  /** What the claims come to. */
  standing: EndUser | undefined;

  readonly #span: WeakRef<Span>;
  readonly #claims = new Map<number, EndUser>();
  readonly #sessions = new Map<number, string>();
  readonly #stamped = new Map<string, AttributeValue>();
  #default: ProcessDefault = {};
  #autoSession = false;

  constructor(span: Span, isRoot: boolean, takesIdentity: boolean) {
    const { traceId, spanId } = span.spanContext();
    this.traceId = traceId;
    this.spanId = spanId;
    // Weak: a span that is never ended must not be kept.
    this.#span = new WeakRef(span);
    this.name = String((span as { name?: unknown }).name ?? "");
    this.isRoot = isRoot;
    this.takesIdentity = takesIdentity;
  }

  /** The span, while somebody else still holds it. */
  get span(): Span | undefined {
    return this.#span.deref();
  }

  /** The session id that stands on the span. */
  get sessionId(): string | undefined {
    return textIn(this.#stamped.get(SESSION_ID));
  }

  /** Settles the identity of a local root that has just been opened. */
  start(declared: Declaration | undefined, block: Identified | undefined, byDefault: ProcessDefault): void {
    const span = this.span;
    if (span === undefined || !this.takesIdentity) return;
    this.#default = byDefault;
    this.#readResource(span);
    if (byDefault.endUser !== undefined) this.#claims.set(byDefault.endUser.rank, byDefault.endUser);
    if (block?.endUser !== undefined) this.#claims.set(block.endUser.rank, block.endUser);
    if (byDefault.sessionId !== undefined) this.#sessions.set(DEFAULT_RANK, byDefault.sessionId);
    if (block?.sessionId !== undefined) this.#sessions.set(IDENTIFY_RANK, block.sessionId);
    this.#readAttributes(span);
    if (declared !== undefined) this.#claim(declared);
    this.#stamp(span);
    this.#stampTags(span, declared?.tags);
  }

  /** Takes a declaration made while the local root is open. */
  declare(declared: Declaration): Outcome {
    const span = this.span;
    if (!span?.isRecording()) return "ended";
    if (!this.takesIdentity) return "entry";
    this.#readAttributes(span);
    const outcome = this.#claim(declared);
    this.#stamp(span);
    this.#stampTags(span, declared.tags);
    return outcome;
  }

  /** Whether identity that was put on the span is not among its attributes: the SDK drops what exceeds its limit. */
  isMissingIn(attributes: Readonly<Attributes>): boolean {
    for (const key of this.#stamped.keys()) {
      if (!(key in attributes)) return true;
    }
    return false;
  }

  #claim(declared: Declaration): Outcome {
    let outcome: Outcome = "taken";
    const claim = declared.endUser;
    if (claim !== undefined) {
      const first = this.#claims.get(claim.rank);
      if (first !== undefined && (first.refused || first.id !== undefined)) {
        outcome = claim.sameAs(this.standing) ? "repeated" : "outranked";
      } else {
        this.#claims.set(claim.rank, resolve([first, claim], this.#place) ?? claim);
      }
    }
    if (declared.sessionId !== undefined) {
      const stands = this.#sessions.get(TOP_RANK);
      if (stands === undefined) this.#sessions.set(TOP_RANK, declared.sessionId);
      else if (stands !== declared.sessionId) outcome = "outranked";
    }
    return outcome;
  }

  /** A default on the resource, which the processor would move to this root, counts as the lowest rank. */
  #readResource(span: Span): void {
    const resource = (span as { resource?: { attributes?: Attributes } }).resource;
    const found = endUserIn(resource?.attributes ?? NO_ATTRIBUTES, "resource");
    if (found !== undefined) this.#claims.set(found.rank, found);
  }

  /** Identity that the application itself set as an attribute of the root stays: it was there first. */
  #readAttributes(span: Span): void {
    const attributes = attributesOf(span);
    const written = attributes[END_USER_ID];
    const foreignId = written !== undefined && written !== this.#stamped.get(END_USER_ID);
    if (foreignId || this.#stamped.size === 0) {
      const found = endUserIn(attributes, "");
      if (found !== undefined) this.#claims.set(TOP_RANK, found);
    }
    const session = textIn(attributes[SESSION_ID]);
    if (session !== undefined && session !== this.#stamped.get(SESSION_ID)) this.#sessions.set(TOP_RANK, session);
  }

  /** Writes what the claims come to, as far as the span does not say it yet. */
  #stamp(span: Span): void {
    const claims = [...this.#claims].sort(([left], [right]) => right - left).map(([, claim]) => claim);
    const resolved = resolve(claims, this.#place);
    const leaves = resolved === undefined ? undefined : leaving().of(resolved);
    const left = this.#withinLimit(span, leaves);
    this.standing = standing(resolved, leaves, left);
    const attributes = attributesOf(span);
    const wanted: Record<string, AttributeValue> = {};
    if (left !== undefined) {
      Object.assign(wanted, left.refused ? this.#refusal(left, attributes) : written(left, attributes));
    }
    const session = this.#session(left, attributes);
    if (session !== undefined) wanted[SESSION_ID] = session;
    for (const [key, value] of Object.entries(wanted)) {
      if (attributes[key] !== value) span.setAttribute(key, value);
      this.#stamped.set(key, value);
    }
  }

  /** What covers an identity that stands on the span, or would come from its resource; nothing where none does. */
  #refusal(refused: EndUser, attributes: Readonly<Attributes>): Record<string, AttributeValue> {
    const metadata = END_USER_METADATA in attributes ? { [END_USER_METADATA]: "{}" } : {};
    let nobody: AttributeValue;
    // An empty id would not keep a default on the resource away; a value that is no string at all does.
    if (this.#claims.has(RESOURCE_RANK)) nobody = false;
    else if (END_USER_ID in attributes) nobody = "";
    else return metadata;
    return { [END_USER_ID]: nobody, [END_USER_SOURCE]: refused.source, ...metadata };
  }

  #session(resolved: EndUser | undefined, attributes: Readonly<Attributes>): string | undefined {
    if (this.#sessions.size > 0) {
      const session = this.#sessions.get(Math.max(...this.#sessions.keys())) ?? "";
      return session !== "" || SESSION_ID in attributes ? session : undefined;
    }
    if (!this.#default.autoSession) return undefined;
    if (resolved?.id !== undefined && resolved.source === "init") {
      this.#autoSession = true;
      return autoSessionId();
    }
    if (resolved?.id !== undefined) {
      warnOnce(
        "auto_session_skipped",
        "",
        "autoSession gives one session to a process that serves one end user. Here traces have end users of their own, " +
          "and get none; pass sessionId to trace(), span() or identify().",
      );
    }
    return this.#autoSession ? "" : undefined;
  }

  #withinLimit(span: Span, endUser: EndUser | undefined): EndUser | undefined {
    const limit = valueLengthLimit(span);
    if (endUser === undefined || limit === undefined) return endUser;
    const place = `span ${this.#place}`;
    if (endUser.id !== undefined && endUser.id.length > limit) {
      const error = new RefusedError(`it is longer than the provider's attribute value limit of ${limit}`);
      return refusal(endUser.source, "endUserId", error, place);
    }
    if (endUser.metadataJson !== undefined && endUser.metadataJson.length > limit) {
      const why = `its JSON is longer than the provider's attribute value limit of ${limit}`;
      warnMetadata(`${place} limit`, `endUserMetadata on ${place}`, why);
      return new EndUser(endUser.id, undefined, endUser.source);
    }
    return endUser;
  }

  #stampTags(span: Span, tags: string | undefined): void {
    if (tags === undefined) return;
    const standing = textIn(attributesOf(span)[TAGS]);
    span.setAttribute(TAGS, encodeTags(standing === undefined ? tags : [standing, tags]) ?? tags);
  }

  get #place(): string {
    return shown(this.name);
  }
}

/**
 * The end user as the application knows it, which goes on with the id that it gave, pseudonym or not.
 *
 * @param resolved What the claims come to.
 * @param leaves What of it may leave the process.
 * @param left What of that the span's limits let through.
 */
function standing(
  resolved: EndUser | undefined,
  leaves: EndUser | undefined,
  left: EndUser | undefined,
): EndUser | undefined {
  if (resolved === undefined || left === undefined || left === leaves) return resolved;
  return left.refused ? left : new EndUser(resolved.id, undefined, resolved.source);
}

/** The attributes of a span of the SDK; a span of another make does not show them. */
export function attributesOf(span: Span): Readonly<Attributes> {
  return (span as { attributes?: Attributes }).attributes ?? NO_ATTRIBUTES;
}

/** The end user as attributes; the id first, because what exceeds the provider's count limit is dropped. */
function written(endUser: EndUser, attributes: Readonly<Attributes>): Record<string, AttributeValue> {
  const result: Record<string, AttributeValue> = {};
  if (endUser.id !== undefined) result[END_USER_ID] = endUser.id;
  if (endUser.metadataJson !== undefined) result[END_USER_METADATA] = endUser.metadataJson;
  // OpenTelemetry cannot delete an attribute.
  else if (END_USER_METADATA in attributes) result[END_USER_METADATA] = "{}";
  const says = endUser.id !== undefined || endUser.metadataJson !== undefined;
  if (says && endUser.source !== "") result[END_USER_SOURCE] = endUser.source;
  return result;
}

/**
 * Identity that stands in attributes already, in the shapes that the processor accepts.
 *
 * The source of what the application wrote by hand is `""`: the shim does not claim to have supplied it.
 */
function endUserIn(attributes: Readonly<Attributes>, source: string): EndUser | undefined {
  const id = textOf(END_USER_ID, attributes[END_USER_ID]);
  const metadata = textOf(END_USER_METADATA, attributes[END_USER_METADATA]) || undefined;
  const named = id === undefined || isBlank(id) ? undefined : id;
  return named === undefined && metadata === undefined ? undefined : new EndUser(named, metadata, source);
}

function textIn(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

/** The SDK has no public way to ask a span for its limits. A span of another make has none that we know. */
function valueLengthLimit(span: Span): number | undefined {
  const limit = (span as { _attributeValueLengthLimit?: unknown })._attributeValueLengthLimit;
  return typeof limit === "number" && limit > 0 && Number.isFinite(limit) ? limit : undefined;
}
