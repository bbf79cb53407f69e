/**
 * The end user: what one source supplies, and which source wins.
 *
 * An id and its metadata are one unit: the source that supplies the id supplies the metadata too, so that one user's id
 * never meets another's metadata. A source with metadata alone lends it to the id of the next source. A refused id ends
 * the resolution: better no identity than somebody else's.
 */

import { encodeId, encodeMetadata, type SOURCES } from "./conventions.js";
import { RefusedError, reason } from "./refused.js";
import { warnOnce } from "./warnings.js";

/** Which call supplied an identity. */
export type Source = (typeof SOURCES)[number];

/** What an end-user id can be. */
export type EndUserId = string | number | bigint | null | undefined;

/** What end-user metadata can be: any JSON object. */
export type EndUserMetadata = object | null | undefined;

const RANKS: Readonly<Record<string, number>> = {
  resource: 0,
  init: 1,
  identify: 2,
  trace: 3,
  span: 3,
  set_end_user: 3,
};

/** The rank of `trace()`, `span()` and `setEndUser()`. */
export const TOP_RANK = 3;
/** The rank of a default on the resource. */
export const RESOURCE_RANK = 0;

/** A session id that was given and refused: it ends the resolution as a refused end-user id does. */
export const NO_SESSION = "";

/** What one source says about the end user. Immutable; its values are already checked and encoded. */
export class EndUser {
  /** The end user's id; `undefined` where the source has metadata alone. */
  readonly id: string | undefined;
  /** The metadata as it goes on the span. */
  readonly metadataJson: string | undefined;
  /** Which call supplied it; `""` for what the application wrote on the span by hand. */
  readonly source: string;
  /** The source supplied an id that cannot be used. Then nothing else is here, and no lower source is asked. */
  readonly refused: boolean;

  constructor(id: string | undefined, metadataJson: string | undefined, source: string, refused = false) {
    this.id = id;
    this.metadataJson = metadataJson;
    this.source = source;
    this.refused = refused;
  }

  /** The metadata as a new object; empty where there is none. */
  get metadata(): Record<string, unknown> {
    return parsed(this.metadataJson);
  }

  /** A higher rank replaces a lower one; at equal rank the first stays. */
  get rank(): number {
    return RANKS[this.source] ?? TOP_RANK;
  }

  /** Whether this repeats the identity that stands: the same id, and no other metadata. */
  sameAs(standing: EndUser | undefined): boolean {
    if (standing === undefined || this.refused || standing.refused) return false;
    return (
      (this.id === undefined || this.id === standing.id) &&
      (this.metadataJson === undefined || this.metadataJson === standing.metadataJson)
    );
  }
}

/**
 * Checks and encodes what an application passed. Never throws; what cannot be used is refused with a warning.
 *
 * @param source Which call it was passed to.
 * @param endUserId See `encodeId`; or a function that returns such a value.
 * @param endUserMetadata See `encodeMetadata`; or a function that returns such a value.
 * @param place The call as a warning names it: `trace("chat")`.
 * @param args What functions are called with.
 * @returns `undefined` where neither an id nor metadata was given.
 */
export function endUserFrom(
  source: Source,
  endUserId: unknown,
  endUserMetadata: unknown,
  place: string,
  args: readonly unknown[] = [],
): EndUser | undefined {
  let id: string | undefined;
  try {
    id = encodeId(callArgument(endUserId, args));
  } catch (error) {
    return refusal(source, typeof endUserId === "function" ? "The function endUserId" : "endUserId", error, place);
  }
  let metadataJson: string | undefined;
  try {
    metadataJson = encodeMetadata(callArgument(endUserMetadata, args));
  } catch (error) {
    warnMetadata(`${place} given`, `endUserMetadata of ${place}`, reason(error));
  }
  return id === undefined && metadataJson === undefined ? undefined : new EndUser(id, metadataJson, source);
}

/** The end user of a source whose id cannot be used. Warns. */
export function refusal(source: string, what: string, error: unknown, place: string): EndUser {
  warnOnce(
    "id_refused",
    place,
    `${what} of ${place} is refused, because ${reason(error)}. No other source stands in for it.`,
  );
  return new EndUser(undefined, undefined, source, true);
}

/** Says that metadata is refused. */
export function warnMetadata(place: string, what: string, why: string): void {
  warnOnce("metadata_refused", place, `${what} is refused, because ${why}. The end user's id is not affected.`);
}

/** A session id as text; `undefined` where none was given; `NO_SESSION`, with a warning, where it cannot be used. */
export function encodeSession(sessionId: unknown, place: string, args: readonly unknown[] = []): string | undefined {
  try {
    return encodeId(callArgument(sessionId, args));
  } catch (error) {
    warnOnce(
      "session_refused",
      place,
      `sessionId of ${place} is refused, because ${reason(error)}. No other source stands in for it.`,
    );
    return NO_SESSION;
  }
}

/**
 * The value, or what it returns where it is a function.
 *
 * @throws RefusedError It is or returned a promise; identity is needed at once.
 */
export function callArgument(value: unknown, args: readonly unknown[] = []): unknown {
  const found: unknown = typeof value === "function" ? value(...args) : value;
  if (isThenable(found)) {
    // Nobody else will hear of its rejection, and an unheard one would end the process.
    if (typeof value === "function") found.then(undefined, () => undefined);
    throw new RefusedError("it is a promise; await first, then call setEndUser()");
  }
  return found;
}

/** Whether a value is a promise, of whatever make. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return (
    (typeof value === "object" || typeof value === "function") &&
    value !== null &&
    "then" in value &&
    typeof value.then === "function"
  );
}

/**
 * What the sources, the highest rank first, come to together.
 *
 * @returns The first id with its own metadata and what higher sources lend; a refusal where one is met before an id;
 *   lent metadata alone where nobody has an id; `undefined` where nobody has anything.
 */
export function resolve(sources: Iterable<EndUser | undefined>, place = "a trace"): EndUser | undefined {
  let lent: EndUser | undefined;
  for (const source of sources) {
    if (source === undefined) continue;
    const merged = lent === undefined || source.refused ? source : lend(lent, source, place);
    if (merged.refused || merged.id !== undefined) return merged;
    lent = merged;
  }
  return lent;
}

/** `taker` with the metadata of both; `lender` wins a key. Without an id the lender stays the source. */
function lend(lender: EndUser, taker: EndUser, place: string): EndUser {
  const source = taker.id === undefined ? lender.source : taker.source;
  if (taker.metadataJson === undefined) return new EndUser(taker.id, lender.metadataJson, source);
  let merged: string | undefined;
  try {
    merged = encodeMetadata({ ...taker.metadata, ...lender.metadata });
  } catch (error) {
    warnMetadata(`${place} merged`, `endUserMetadata from several sources on ${place}`, reason(error));
  }
  return new EndUser(taker.id, merged, source);
}

/** Metadata of a foreign hand may be any text; what is no JSON object has no members. */
function parsed(json: string | undefined): Record<string, unknown> {
  if (json === undefined) return {};
  try {
    const value: unknown = JSON.parse(json);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : {};
  } catch {
    return {};
  }
}
