/**
 * Attribute keys, and how an identity becomes attribute values.
 *
 * The keys are what travels on the wire; the processor reads the same ones. The functions are pure: they return the
 * text to put on a span or throw `RefusedError`, whose message says why and never holds the value (an end-user id is
 * personal data and must not reach a log).
 */

import { encodeJson, typeName, utf8Size } from "./json.js";
import { RefusedError } from "./refused.js";

export { encodeJson } from "./json.js";
export { RefusedError } from "./refused.js";

/** The identity namespace: this key, and every key that starts with it and a dot. */
export const END_USER_NAMESPACE = "neatlogs.end_user";
/** On the root span: the end user's id, a string. */
export const END_USER_ID = "neatlogs.end_user.id";
/** On the root span: a JSON object, as a string. */
export const END_USER_METADATA = "neatlogs.end_user.metadata";
/** On the root span: which call supplied the id; one of `SOURCES`. */
export const END_USER_SOURCE = "neatlogs.end_user.source";

export const SOURCES = ["init", "identify", "trace", "span", "set_end_user", "resource"] as const;

/** On the root span: the session (a conversation, say) that the trace belongs to. */
export const SESSION_ID = "neatlogs.session.id";
/** On the resource: the operator, who runs the process. Never an end user. */
export const OPERATOR_ID = "user.id";

export const WORKFLOW_NAME = "neatlogs.workflow_name";
export const PROJECT = "neatlogs.project";
/** Comma-separated; on the resource from `init({ tags })`, on the root span from `trace({ tags })`. */
export const TAGS = "neatlogs.tags";

/** `workflow`, `agent`, `chain`, `tool`, `llm`, ...; lower case. */
export const SPAN_KIND = "neatlogs.span.kind";
/** The same in capitals, as OpenInference writes it. */
export const OPENINFERENCE_SPAN_KIND = "openinference.span.kind";

export const INPUT_VALUE = "input.value";
export const INPUT_MIME_TYPE = "input.mime_type";
export const OUTPUT_VALUE = "output.value";
export const OUTPUT_MIME_TYPE = "output.mime_type";
export const JSON_MIME_TYPE = "application/json";
export const TEXT_MIME_TYPE = "text/plain";

/** UTF-8 bytes. A longer id is refused, never cut: a cut id merges two end users. */
export const MAX_ID_BYTES = 1024;
/** UTF-8 bytes of the encoded JSON object. */
export const MAX_METADATA_BYTES = 16 * 1024;

/** Whether an attribute key lies in the identity namespace. Compared exactly, case included. */
export function isIdentityKey(key: string): boolean {
  return key === END_USER_NAMESPACE || key.startsWith(`${END_USER_NAMESPACE}.`);
}

/**
 * The text of an end-user id or a session id.
 *
 * @param value A string, an integer or a bigint. `undefined`, `null`, empty and blank text mean "none".
 * @returns The text, unchanged and never cut, or `undefined` where there is none.
 * @throws RefusedError A value of another type (booleans and fractions among them), an integer that a number holds
 *   only approximately, text that UTF-8 cannot hold, or text over `MAX_ID_BYTES`.
 */
export function encodeId(value: unknown): string | undefined {
  if (value === undefined || value === null) return undefined;
  const text = idText(value);
  if (isBlank(text)) return undefined;
  const size = utf8Size(text);
  if (size > MAX_ID_BYTES) throw new RefusedError(`it has ${size} bytes, more than ${MAX_ID_BYTES}`);
  return text;
}

function idText(value: unknown): string {
  switch (typeof value) {
    case "string":
      return value;
    case "bigint":
      return value.toString();
    case "number":
      if (Number.isSafeInteger(value)) return String(value);
      if (Number.isNaN(value)) throw new RefusedError("it is NaN");
      // Two neighbours of such a size are one number: they would merge two end users.
      if (Number.isInteger(value)) throw new RefusedError("a number cannot hold it exactly; pass a string or a bigint");
      throw new RefusedError("it is a number with a fraction; pass a string or an integer");
    default:
      throw new RefusedError(`it is a ${typeName(value)}; pass a string, an integer or a bigint`);
  }
}

/**
 * End-user metadata as the JSON text that goes on the span: compact, keys sorted.
 *
 * @param value An object or a `Map`. Values that JSON cannot hold become `String(value)`, as `JSON.stringify` does what
 *   has a `toJSON` becomes its result, and `undefined` is left out. `undefined`, `null` and an empty object mean "none".
 * @throws RefusedError Not an object, nested too deeply or in itself, or over `MAX_METADATA_BYTES` when encoded.
 */
export function encodeMetadata(value: unknown): string | undefined {
  if (value === undefined || value === null) return undefined;
  const kind = Object.prototype.toString.call(value);
  if (kind !== "[object Object]" && kind !== "[object Map]") {
    throw new RefusedError(`it is a ${typeName(value)}, not an object`);
  }
  const text = encodeJson(value);
  if (!text.startsWith("{")) throw new RefusedError(`it is a ${typeName(value)}, not an object`);
  if (text === "{}") return undefined;
  const size = utf8Size(text);
  if (size > MAX_METADATA_BYTES) {
    throw new RefusedError(`its JSON has ${size} bytes, more than ${MAX_METADATA_BYTES}`);
  }
  return text;
}

/**
 * Tags as one comma-separated string: each trimmed, blank and repeated ones left out, the order kept.
 *
 * @param value An array of strings, or one string in which commas separate. `undefined` and `null` mean "none".
 * @throws RefusedError Not an array of strings.
 */
export function encodeTags(value: unknown): string | undefined {
  if (value === undefined || value === null) return undefined;
  const given = typeof value === "string" ? [value] : value;
  if (!Array.isArray(given) && !(given instanceof Set)) {
    throw new RefusedError(`they are a ${typeName(value)}, not an array of strings`);
  }
  const found = new Set<string>();
  for (const tag of given as Iterable<unknown>) {
    if (typeof tag !== "string") throw new RefusedError(`one of them is a ${typeName(tag)}, not a string`);
    utf8Size(tag);
    for (const part of tag.split(",")) {
      if (!isBlank(part)) found.add(part.replace(EDGES, ""));
    }
  }
  return [...found].join(",") || undefined;
}

/**
 * The string that an identity attribute on a root span or a resource stands for, as the processor reads it.
 *
 * A string stands for itself, an integer id for its decimal digits. (Attributes of the SDK for JavaScript cannot be
 * objects, as they can elsewhere.)
 *
 * @returns `undefined` where the value is of no use.
 */
export function textOf(key: string, value: unknown): string | undefined {
  if (typeof value === "string") return value;
  // What is an integer here is what the exporters write as one.
  if (key === END_USER_ID && Number.isInteger(value)) return BigInt(value as number).toString();
  return undefined;
}

/**
 * White space as Python's `str.strip` and the processor see it: with the separators U+001C to U+001F, without U+FEFF.
 * Text is the same in every language.
 */
const WHITE_SPACE = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
const BLANK = new RegExp(`^${WHITE_SPACE}*$`);
const EDGES = new RegExp(`^${WHITE_SPACE}+|${WHITE_SPACE}+$`, "g");

/** Whether text says nothing. */
export function isBlank(text: string): boolean {
  return BLANK.test(text);
}
