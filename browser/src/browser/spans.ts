/** From a trace as an application writes it to spans, the root first. */

import { isIdentityKey, SESSION_ID } from "../identity/conventions.js";
import { shown, warnOnce } from "../identity/warnings.js";
import { attributesOf, content, milliseconds, of, type SpanInput, statusOf, type Unusable } from "./fields.js";
import { newSpanId } from "./ids.js";
import { type Attributes, FLAGS, INTERNAL, keyValues, type SpanEvent, spanText, unixNano } from "./otlp.js";
import { placed, type Timed, timed } from "./times.js";

/** What the root of a trace says beside its fields. */
export interface Root {
  traceId: string;
  spanId: string;
  /** Its identity, session and tags. */
  own: Attributes;
  /** Milliseconds since the epoch: when a trace ended that does not say. */
  now: number;
}

/** Where a span stands. */
interface Place {
  spanId: string;
  parentId: string | undefined;
  start: number;
  end: number;
}

const MAX_DEPTH = 100;
const MAX_SPANS = 10_000;

/** Fields with which a child may try to name an end user. They have no effect there. */
const IDENTITY_FIELDS = ["endUser", "endUserId", "end_user_id", "endUserMetadata", "end_user_metadata"];

/** The spans of a trace as JSON text. */
export function spansOf(trace: SpanInput, root: Root): string[] {
  const tree = treeOf(trace);
  // Spans that begin at the same moment are shown in the order of their ids: that of their writing.
  const ids = Array.from({ length: countOf(tree) }, newSpanId).sort();
  const texts: string[] = [];
  const write = (node: Timed, parentId: string | undefined, at: number): number => {
    const spanId = parentId === undefined ? root.spanId : (ids[texts.length] ?? newSpanId());
    const { start, end } = placed(node, at);
    texts.push(textOf(node.span, { spanId, parentId, start, end }, root));
    let following = start;
    for (const child of node.children) following = write(child, spanId, following);
    return end;
  };
  write(tree, undefined, Math.max(0, root.now - tree.duration));
  return texts;
}

/** Says which field of a span is left out. */
export function unusableIn(span: SpanInput): Unusable {
  return (field) => {
    const what = `${field} of span ${shown(span.name)}`;
    warnOnce("field_unusable", what, `${what} has a value that cannot be used, and is left out.`);
  };
}

function treeOf(trace: SpanInput): Timed {
  let spans = 0;
  const read = (span: SpanInput, depth: number): Timed => {
    spans += 1;
    const children: Timed[] = [];
    for (const child of objectsOf(span.children, "children", unusableIn(span))) {
      if (depth >= MAX_DEPTH || spans >= MAX_SPANS) {
        const most = `at most ${MAX_SPANS} spans, ${MAX_DEPTH} deep`;
        warnOnce("spans_left_out", nameOf(trace), `Spans of trace ${shown(trace.name)} are left out: ${most}.`);
        break;
      }
      children.push(read(child, depth + 1));
    }
    return timed(span, children, unusableIn(span));
  };
  return read(trace, 1);
}

function countOf(node: Timed): number {
  return node.children.reduce((sum, child) => sum + countOf(child), 1);
}

function textOf(span: SpanInput, place: Place, root: Root): string {
  const unusable = unusableIn(span);
  const isRoot = place.parentId === undefined;
  if (nameOf(span) !== span.name) unusable("name");
  const all = attributesOf(span, isRoot, unusable);
  // The root's identity is settled by the client, a child has none.
  const own = Object.entries(all).filter(([key]) => !isIdentityKey(key) && key !== SESSION_ID);
  if (!isRoot) warnOfOverride(span, all);
  return spanText({
    traceId: root.traceId,
    spanId: place.spanId,
    ...(place.parentId === undefined ? {} : { parentSpanId: place.parentId }),
    name: nameOf(span),
    kind: INTERNAL,
    startTimeUnixNano: unixNano(place.start),
    endTimeUnixNano: unixNano(Math.max(place.start, place.end)),
    attributes: keyValues({ ...Object.fromEntries(own), ...(isRoot ? root.own : {}) }, unusable),
    events: eventsOf(span, place.start, unusable),
    status: statusOf(span, unusable),
    flags: FLAGS,
  });
}

function warnOfOverride(span: SpanInput, attributes: Attributes): void {
  const fields = span as unknown as Attributes;
  const given = IDENTITY_FIELDS.filter((field) => fields[field] !== undefined && fields[field] !== null);
  const found = [...given, ...Object.keys(attributes).filter(isIdentityKey)][0];
  if (found === undefined) return;
  const what = `${found} of child ${shown(span.name)} has no effect: the root owns the end user of a trace.`;
  warnOnce("override_ignored", nameOf(span), `${what} Give it to the trace itself.`);
}

function nameOf(span: SpanInput): string {
  return typeof span.name === "string" && span.name !== "" ? span.name : "unnamed";
}

/** The objects of an array, as `children` and `logs` have to be. */
function objectsOf<T>(list: readonly T[] | undefined, field: string, unusable: Unusable): T[] {
  const given: unknown = list ?? [];
  const usable = Array.isArray(given) ? given.filter((one) => typeof one === "object" && one !== null) : [];
  if (!Array.isArray(given) || usable.length < given.length) unusable(field);
  return usable;
}

function eventsOf(span: SpanInput, start: number, unusable: Unusable): SpanEvent[] {
  return objectsOf(span.logs, "logs", unusable).map((log) => ({
    name: "log",
    timeUnixNano: unixNano(milliseconds(log.timestamp, "logs.timestamp", unusable) ?? start),
    attributes: keyValues(
      {
        message: content(log.message ?? "", "logs.message", unusable),
        level: of(log.level, "string", "logs.level", unusable),
      },
      unusable,
    ),
  }));
}
