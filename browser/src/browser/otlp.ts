/** OTLP's JSON (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding), as far as it is sent from here. */

import { encodeJson } from "../identity/json.js";

/** An attribute's value. 64-bit integers are text, as in all JSON of protobuf. */
export type AnyValue =
  | { stringValue: string }
  | { boolValue: boolean }
  | { intValue: string }
  | { doubleValue: number | string }
  | { arrayValue: { values: AnyValue[] } };

/** Attributes by key; `undefined` is left out. */
export type Attributes = Record<string, unknown>;

/** One attribute. */
export interface KeyValue {
  key: string;
  value: AnyValue;
}

/** One event of a span. */
export interface SpanEvent {
  name: string;
  timeUnixNano: string;
  attributes: KeyValue[];
}

/** One span. */
export interface OtlpSpan {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  kind: number;
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  attributes: KeyValue[];
  events: SpanEvent[];
  status: { code?: number; message?: string };
  flags: number;
}

/** `SpanKind` INTERNAL: whatever the application calls a span, for OTLP it is a step of it. */
export const INTERNAL = 1;
/** Status codes. */
export const OK = 1;
export const ERROR = 2;
/** Sampled, and (0x100) it is known that the parent is not remote. */
export const FLAGS = 0x101;

/** A number that is a double also where it has no fraction: an attribute has one type. */
export class Double {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

/** A value as OTLP has it: text, numbers, booleans and arrays of them as they are, anything else as JSON. */
export function anyValue(value: unknown): AnyValue {
  switch (typeof value) {
    case "string":
      return { stringValue: value };
    case "boolean":
      return { boolValue: value };
    case "number":
      if (Number.isSafeInteger(value)) return { intValue: String(value) };
      return double(value);
    case "bigint":
      return BigInt.asIntN(64, value) === value ? { intValue: String(value) } : { stringValue: String(value) };
    default:
      if (value instanceof Double) return double(value.value);
      if (Array.isArray(value) && value.every(isPlain)) return { arrayValue: { values: value.map(anyValue) } };
      return { stringValue: encodeJson(value) };
  }
}

/** Attributes in OTLP's form. A value that cannot be encoded is left out; `refused` gets its key. */
export function keyValues(attributes: Attributes, refused: (key: string) => void): KeyValue[] {
  const found: KeyValue[] = [];
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || key === "") continue;
    try {
      found.push({ key, value: anyValue(value) });
    } catch {
      refused(key);
    }
  }
  return found;
}

/** Milliseconds since the epoch as nanoseconds. Browsers know microseconds at best. */
export function unixNano(milliseconds: number): string {
  return String(BigInt(Math.round(milliseconds * 1000)) * 1000n);
}

/** A span as JSON text. UTF-8 cannot hold half a surrogate pair; it is written out, as the shims do. */
export function spanText(span: OtlpSpan): string {
  // JSON.stringify escapes halves of pairs and no others; the first alternative skips escaped backslashes.
  return JSON.stringify(span).replace(/\\\\|\\(ud[89a-f])/g, (all, half: string | undefined) =>
    half === undefined ? all : `\\\\${half}`,
  );
}

/** The text of a request before its first span and after its last. */
export function envelope(resource: Attributes, scope: { name: string; version: string }): [string, string] {
  const attributes = keyValues(resource, () => {});
  const before = `{"resourceSpans":[{"resource":${JSON.stringify({ attributes })},"scopeSpans":[{"scope":`;
  return [`${before}${JSON.stringify(scope)},"spans":[`, "]}]}]}"];
}

function double(value: number): AnyValue {
  return { doubleValue: Number.isFinite(value) ? value : String(value) };
}

function isPlain(value: unknown): boolean {
  return ["string", "number", "boolean", "bigint"].includes(typeof value);
}
