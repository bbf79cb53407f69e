/**
 * Trace and span ids of W3C Trace Context (https://www.w3.org/TR/trace-context/#trace-id): random, never all zero.
 */

/** A new trace id: 32 lower-case hexadecimal digits. */
export function newTraceId(): string {
  return randomHex(16);
}

/** A new span id: 16 lower-case hexadecimal digits. */
export function newSpanId(): string {
  return randomHex(8);
}

/** The header that makes the spans of a server children of this span. It is sampled: what is opened here is sent. */
export function traceparent(traceId: string, spanId: string): string {
  return `00-${traceId}-${spanId}-01`;
}

function randomHex(bytes: number): string {
  const random = new Uint8Array(bytes);
  do {
    crypto.getRandomValues(random);
  } while (random.every((byte) => byte === 0));
  return Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
