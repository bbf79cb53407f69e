/**
 * Whom a page serves: what it says of its end user, and what a single trace says instead.
 *
 * Kept in memory alone: nothing is written to storage or cookies, and a page that is loaded anew has to say it again.
 */

import { END_USER_ID, END_USER_METADATA, END_USER_SOURCE, encodeId, SESSION_ID } from "../identity/conventions.js";
import {
  callArgument,
  EndUser,
  type EndUserId,
  type EndUserMetadata,
  encodeSession,
  endUserFrom,
  refusal,
  resolve,
  type Source,
} from "../identity/end-user.js";
import { RefusedError } from "../identity/refused.js";

/** An end user, in the words of every call that takes one. */
export interface EndUserInput {
  /** The end user's id. */
  endUser?: EndUserId | (() => EndUserId);
  /** The same, as Node and Python call it. */
  endUserId?: EndUserId | (() => EndUserId);
  /** A JSON object. It goes with the id that it stands beside, never with another. */
  endUserMetadata?: EndUserMetadata | (() => EndUserMetadata);
}

/** Whom a client or a span processor of a page serves. */
export interface IdentityOptions extends EndUserInput {
  /** Asked at each trace, unless `setEndUser()` has said who it is: an id, or an end user with metadata. */
  getEndUser?: (() => EndUserId | EndUserInput) | undefined;
  /** The session (a conversation, say) that traces belong to. */
  sessionId?: EndUserId;
}

/** Who a trace belongs to. */
export interface Settled {
  endUser: EndUser | undefined;
  sessionId: string | undefined;
}

/** See the module. Nothing here throws. */
export class ClientIdentity {
  readonly #getEndUser: IdentityOptions["getEndUser"];
  readonly #place: string;
  #initial: EndUser | undefined;
  #set: EndUser | undefined;
  #sessionId: string | undefined;

  /** @param place What the options were passed to, as a warning names it. */
  constructor(options: IdentityOptions, place: string) {
    this.#place = place;
    this.#getEndUser = typeof options.getEndUser === "function" ? options.getEndUser : undefined;
    this.#initial = endUserOf(options, "init", place);
    this.#sessionId = encodeSession(options.sessionId, place);
  }

  /** See `Neatlogs.setEndUser`. */
  setEndUser(id: EndUserId, metadata: EndUserMetadata): void {
    const found = endUserFrom("set_end_user", id, metadata, "setEndUser()");
    if (found === undefined) this.#forgetEndUser();
    else if (found.id !== undefined || found.refused) this.#set = found;
    // Metadata alone belongs to whoever it is.
    else this.#set = resolve([found, this.#set], "setEndUser()");
  }

  /** See `Neatlogs.setSession`. */
  setSession(id: EndUserId): void {
    this.#sessionId = encodeSession(id, "setSession()");
  }

  /** See `Neatlogs.reset`. */
  reset(): void {
    this.#forgetEndUser();
    this.#sessionId = undefined;
  }

  /** Who traces belong to now, if they do not say themselves. */
  now(): Settled {
    const endUser = resolve([this.#set, this.#set?.id === undefined ? this.#asked() : undefined, this.#initial]);
    return { endUser, sessionId: this.#sessionId };
  }

  #forgetEndUser(): void {
    this.#set = undefined;
    this.#initial = undefined;
  }

  #asked(): EndUser | undefined {
    if (this.#getEndUser === undefined || this.#set?.refused) return undefined;
    const place = `getEndUser of ${this.#place}`;
    try {
      const found = callArgument(this.#getEndUser);
      const isObject = typeof found === "object" && found !== null;
      return endUserOf(isObject ? (found as EndUserInput) : { endUser: found as EndUserId }, "init", place);
    } catch (error) {
      return refusal("init", "The id", error, place);
    }
  }
}

/** What one trace says of its end user and session, over what holds for the page. */
export function settle(
  said: EndUserInput & { sessionId?: EndUserId; attributes?: unknown },
  before: Settled,
  place: string,
): Settled {
  const attributes = typeof said.attributes === "object" && said.attributes !== null ? said.attributes : {};
  const session = encodeSession((attributes as Record<string, unknown>)[SESSION_ID] ?? said.sessionId, place);
  const sources = [inAttributes(attributes as Record<string, unknown>, place), endUserOf(said, "trace", place)];
  return {
    endUser: resolve([...sources, before.endUser], place),
    sessionId: session === undefined ? before.sessionId : session,
  };
}

/** What goes on the root span. */
export function identityAttributes({ endUser, sessionId }: Settled): Record<string, string> {
  const found: Record<string, string> = {};
  if (endUser !== undefined && !endUser.refused) {
    if (endUser.id !== undefined) found[END_USER_ID] = endUser.id;
    if (endUser.metadataJson !== undefined) found[END_USER_METADATA] = endUser.metadataJson;
    found[END_USER_SOURCE] = endUser.source;
  }
  if (sessionId) found[SESSION_ID] = sessionId;
  return found;
}

/** Attributes that the application wrote by hand win over all other fields. Metadata may be JSON text there. */
function inAttributes(attributes: Record<string, unknown>, place: string): EndUser | undefined {
  const id = attributes[END_USER_ID];
  const metadata = attributes[END_USER_METADATA];
  if (typeof metadata !== "string") return endUserFrom("trace", id, metadata, place);
  const named = endUserFrom("trace", id, undefined, place);
  return named?.refused ? named : new EndUser(named?.id, metadata, "trace");
}

function endUserOf(said: EndUserInput, source: Source, place: string): EndUser | undefined {
  const { endUser, endUserId, endUserMetadata } = said;
  try {
    const first = encodeId(callArgument(endUser));
    const second = encodeId(callArgument(endUserId));
    // One of the two may be somebody else.
    if (first !== undefined && second !== undefined && first !== second) throw new RefusedError("endUserId differs");
    return endUserFrom(source, first ?? second, endUserMetadata, place);
  } catch (error) {
    return refusal(source, "endUser", error, place);
  }
}
