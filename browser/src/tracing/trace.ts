/** `trace()`: a span around one unit of work, and the end user that it serves. */

import type { Attributes, Span } from "@opentelemetry/api";
import { encodeTags } from "../identity/conventions.js";
import { type EndUserId, type EndUserMetadata, encodeSession, endUserFrom } from "../identity/end-user.js";
import { reason } from "../identity/refused.js";
import { shown, warnOnce } from "../identity/warnings.js";
import type { Mask } from "./content.js";
import { noteNamed } from "./declaring.js";
import { follow } from "./following.js";
import { checkedKind, checkedMask, checkedName, openSpan } from "./open-span.js";
import { warnUnknownOptions } from "./options.js";

/** What `trace()` takes. */
export interface TraceOptions {
  /** The span's name. */
  readonly name: string;
  /** `"WORKFLOW"` (the default), `"AGENT"`, `"CHAIN"`, `"TOOL"`, `"LLM"`, ... */
  readonly kind?: string;
  /**
   * A string, an integer, a bigint, or a function that returns one. At most 1,024 bytes of UTF-8, never cut.
   * `undefined`, `null` and blank text mean that the end user comes from `identify()` or `init()`.
   */
  readonly endUserId?: EndUserId | (() => EndUserId);
  /** A JSON object of at most 16 KiB, or a function that returns one. */
  readonly endUserMetadata?: EndUserMetadata | (() => EndUserMetadata);
  /** The session (a conversation, say) that the trace belongs to. */
  readonly sessionId?: EndUserId | (() => EndUserId);
  /** Put on the trace's root span, besides the process's own. */
  readonly tags?: string | readonly string[] | null | undefined;
  /**
   * A function from attributes to attributes. It covers the content that the shim captures in this block: `attributes`,
   * and what `span()` captures inside. It runs at the moment of capture, so no exporter sees what it removes; if it
   * throws, the content is dropped. (What instrumentations capture is covered by `init({ mask })`.)
   */
  readonly mask?: Mask | undefined;
  /** Attributes of the span. */
  readonly attributes?: Attributes | undefined;
}

const OPTIONS = ["name", "kind", "endUserId", "endUserMetadata", "sessionId", "tags", "mask", "attributes"];

/**
 * Opens a span for one unit of work, and says which end user it serves.
 *
 *     await trace({ name: "chat", endUserId: request.user.id, endUserMetadata: { plan: "pro" } }, async (span) => {
 *       ...
 *     });
 *
 * Where no span is active it is the trace's root span and carries the end user. Where an instrumentation has opened the
 * trace already (that of an HTTP server, for instance), the end user goes to that trace's root. Inside another `trace()`
 * or `span()` it opens a child span, and naming another end user has no effect but a warning.
 *
 * The span ends when `work` returns, or when the promise that it returns is settled. Errors are recorded on the span
 * and pass unchanged. Bad identity is refused with a warning; nothing here throws.
 *
 * @param work Gets the OpenTelemetry span.
 * @returns What `work` returns.
 */
export function trace<T>(options: TraceOptions, work: (span: Span) => T): T {
  const given: Partial<TraceOptions> = options ?? {};
  const name = checkedName(given.name, "trace()");
  const place = `trace(${shown(name)})`;
  warnUnknownOptions(options, OPTIONS, place);
  const endUser = endUserFrom("trace", given.endUserId, given.endUserMetadata, place);
  noteNamed(endUser);
  const declared = {
    endUser,
    sessionId: encodeSession(given.sessionId, place),
    tags: checkedTags(given.tags, place),
  };
  const opened = openSpan(name, {
    kind: checkedKind(given.kind, "WORKFLOW", place),
    place,
    declared,
    mask: checkedMask(given.mask, place),
    attributes: given.attributes ?? {},
  });
  if (typeof work !== "function") {
    warnOnce(
      "bad_argument",
      `${place} work`,
      `${place} needs a function as its second argument: what the span is for.`,
    );
    opened.end();
    return undefined as T;
  }
  return follow(opened, () => work(opened.span));
}

function checkedTags(tags: unknown, place: string): string | undefined {
  try {
    return encodeTags(tags);
  } catch (error) {
    warnOnce("tags_refused", place, `tags of ${place} are refused, because ${reason(error)}.`);
    return undefined;
  }
}
