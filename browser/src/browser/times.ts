/** When spans began and ended, where they say only part of it or nothing. The processor does likewise. */

import { milliseconds, of, type SpanInput, type Unusable } from "./fields.js";

/** A span with what is known of its times, in milliseconds. */
export interface Timed {
  span: SpanInput;
  start: number | undefined;
  end: number | undefined;
  /** How long it took; as long as its children together where nobody says. */
  duration: number;
  children: Timed[];
}

/** Read the times of a span whose children have been read. */
export function timed(span: SpanInput, children: Timed[], unusable: Unusable): Timed {
  let start = milliseconds(span.start, "start", unusable);
  const end = milliseconds(span.end, "end", unusable);
  let duration = durationOf(span, unusable);
  if (start !== undefined && end !== undefined) duration = Math.max(0, end - start);
  duration ??= children.reduce((sum, child) => sum + (child.start === undefined ? child.duration : 0), 0);
  if (start === undefined && end !== undefined) start = Math.max(0, end - duration);
  return { span, start, end, duration, children };
}

/** Start and end of a span that, if it does not say otherwise, began at a given time. */
export function placed(node: Timed, at: number): { start: number; end: number } {
  const start = node.start ?? at;
  return { start, end: node.end ?? start + node.duration };
}

function durationOf(span: SpanInput, unusable: Unusable): number | undefined {
  const duration = of(span.duration_ms, "number", "duration_ms", unusable);
  if (duration === undefined || (duration >= 0 && duration < 1e12)) return duration;
  unusable("duration_ms");
  return undefined;
}
