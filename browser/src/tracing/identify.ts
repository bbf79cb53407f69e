/** `identify()`: names the end user of the root spans that others open. */

import { type Context, context as contextApi, createContextKey, trace as traceApi } from "@opentelemetry/api";
import {
  type EndUser,
  type EndUserId,
  type EndUserMetadata,
  encodeSession,
  endUserFrom,
  resolve,
} from "../identity/end-user.js";
import { shown, warnOnce } from "../identity/warnings.js";
import { follow } from "./following.js";
import { warnUnknownOptions } from "./options.js";

const IDENTIFIED = createContextKey("neatlogs-otel identified");
const PLACE = "identify()";

/** What `identify()` takes. */
export interface IdentifyOptions {
  /** A string, an integer, a bigint, or a function that returns one, called when the block begins. */
  readonly endUserId?: EndUserId | (() => EndUserId);
  /** A JSON object, or a function that returns one. */
  readonly endUserMetadata?: EndUserMetadata | (() => EndUserMetadata);
  /** The session that the roots belong to. */
  readonly sessionId?: EndUserId | (() => EndUserId);
}

/** What the open `identify()` blocks of a context say together. */
export class Identified {
  readonly endUser: EndUser | undefined;
  readonly sessionId: string | undefined;
  readonly #outer: Identified | undefined;
  #taken = false;

  constructor(endUser: EndUser | undefined, sessionId: string | undefined, outer: Identified | undefined) {
    this.endUser = resolve([endUser, outer?.endUser], PLACE);
    this.sessionId = sessionId ?? outer?.sessionId;
    this.#outer = outer;
  }

  /** Whether it says anything. */
  get isEmpty(): boolean {
    return this.endUser === undefined && this.sessionId === undefined;
  }

  /** Whether a root was opened under this block. */
  get taken(): boolean {
    return this.#taken;
  }

  /** Notes that a root was opened under this block. */
  take(): void {
    for (let block: Identified | undefined = this; block !== undefined && !block.#taken; block = block.#outer) {
      block.#taken = true;
    }
  }
}

/** The innermost open `identify()` of a context. */
export function identified(context: Context): Identified | undefined {
  const found = context.getValue(IDENTIFIED);
  return found instanceof Identified ? found : undefined;
}

/**
 * Names the end user of the root spans that others open while `work` runs.
 *
 * For code that calls into an instrumented library and does not open the trace itself:
 *
 *     await identify({ endUserId: job.userId, sessionId: job.conversation }, () =>
 *       client.chat.completions.create(...));
 *
 * It has no effect on a trace that is already open (there, use `trace()` or `setEndUser()`), and says so once when
 * `work` is done. It never throws anything of its own.
 *
 * @returns What `work` returns.
 */
export function identify<T>(options: IdentifyOptions, work: () => T): T {
  const active = contextApi.active();
  const block = new Identified(
    endUserFrom("identify", options?.endUserId, options?.endUserMetadata, PLACE),
    encodeSession(options?.sessionId, PLACE),
    identified(active),
  );
  warnUnknownOptions(options, ["endUserId", "endUserMetadata", "sessionId"], PLACE);
  const span = traceApi.getSpan(active);
  const inOpenTrace = span?.isRecording() === true && traceApi.isSpanContextValid(span.spanContext());
  const done = () => {
    if (inOpenTrace && !block.taken && !block.isEmpty) warnNotTaken((span as { name?: unknown }).name);
  };
  if (typeof work !== "function") {
    warnOnce(
      "bad_argument",
      PLACE,
      "identify() had no effect: it names the end user of traces opened inside a function. " +
        "Pass the function as its second argument.",
    );
    return undefined as T;
  }
  const context = active.setValue(IDENTIFIED, block);
  return follow({ run: (inside) => contextApi.with(context, inside), fail: () => undefined, end: once(done) }, work);
}

function once(work: () => void): () => void {
  let isDone = false;
  return () => {
    if (!isDone) work();
    isDone = true;
  };
}

function warnNotTaken(name: unknown): void {
  warnOnce(
    "identify_not_taken",
    String(name),
    "identify() had no effect: it names the end user of traces opened inside it, and here a trace was already open " +
      `(at span ${shown(name)}). Use trace({ endUserId }) or setEndUser() instead.`,
  );
}
