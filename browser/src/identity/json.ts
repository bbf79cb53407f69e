/** Any value as compact JSON with sorted keys, the same text for equal values. */

import { RefusedError } from "./refused.js";

/** Levels of nesting; deeper values are refused rather than filling the stack. */
const MAX_DEPTH = 500;

const encoder = new TextEncoder();

/**
 * Any value as compact JSON with sorted keys (by code point). What JSON cannot hold becomes `String(value)`; what has a
 * `toJSON` becomes its result; `undefined`, functions and symbols are left out of objects and are `null` in arrays, as
 * `JSON.stringify` has it. A `Map` is an object, a `Set` an array, a bigint a number.
 *
 * @throws RefusedError The value is nested too deeply or contains itself.
 */
export function encodeJson(value: unknown): string {
  return written(value, []) ?? "null";
}

/** The UTF-8 length of text, in bytes. @throws RefusedError UTF-8 cannot hold it. */
export function utf8Size(text: string): number {
  if (LONE_SURROGATE.test(text)) throw new RefusedError("UTF-8 cannot hold it");
  return encoder.encode(text).length;
}

/** What a value is, for a message: never the value. */
export function typeName(value: unknown): string {
  if (value === null) return "null";
  if (typeof value !== "object") return typeof value;
  try {
    return String(value.constructor?.name || "object").toLowerCase();
  } catch {
    return "object";
  }
}

const LONE_SURROGATE = /\p{Surrogate}/u;
const LONE_SURROGATES = /\p{Surrogate}/gu;

/** The JSON of a value, `undefined` for what is left out. `inside` holds the objects around it. */
function written(value: unknown, inside: object[]): string | undefined {
  switch (typeof value) {
    case "string":
      return quoted(value);
    case "boolean":
      return String(value);
    case "bigint":
      return value.toString();
    case "number":
      return Number.isFinite(value) ? JSON.stringify(value) : quoted(String(value));
    case "object":
      return value === null ? "null" : writtenObject(value, inside);
    default:
      return undefined;
  }
}

function writtenObject(value: object, inside: object[]): string | undefined {
  if (inside.length >= MAX_DEPTH || inside.includes(value)) {
    throw new RefusedError("it is nested too deeply or contains itself");
  }
  inside.push(value);
  try {
    return composed(value, inside);
  } catch (error) {
    if (error instanceof RefusedError) throw error;
    // Whatever a foreign object throws, one value must not cost the others.
    return quoted(`<unprintable ${typeName(value)}>`);
  } finally {
    inside.pop();
  }
}

function composed(value: object, inside: object[]): string | undefined {
  if ("toJSON" in value && typeof value.toJSON === "function") {
    const replaced: unknown = value.toJSON("");
    // Some return themselves, and mean their members.
    if (replaced !== value) return written(replaced, inside);
  }
  if (Array.isArray(value) || value instanceof Set) {
    return `[${[...value].map((item) => written(item, inside) ?? "null").join(",")}]`;
  }
  if (value instanceof Map) return members(value, inside);
  if (Object.prototype.toString.call(value) === "[object Object]") {
    return members(
      Object.keys(value).map((key) => [key, member(value, key)]),
      inside,
    );
  }
  return quoted(String(value));
}

function members(entries: Iterable<[unknown, unknown]>, inside: object[]): string {
  const found = new Map<string, string>();
  for (const [key, value] of entries) {
    const text = written(value, inside);
    if (text !== undefined) found.set(wellFormed(String(key)), text);
  }
  const keys = [...found.keys()].sort(byCodePoint);
  return `{${keys.map((key) => `${JSON.stringify(key)}:${found.get(key)}`).join(",")}}`;
}

function member(value: object, key: string): unknown {
  try {
    return (value as Record<string, unknown>)[key];
  } catch {
    return "<unprintable getter>";
  }
}

function quoted(text: string): string {
  return JSON.stringify(wellFormed(text));
}

/** The text, with lone surrogates (which UTF-8 cannot hold) written as escapes. */
function wellFormed(text: string): string {
  return text.replace(LONE_SURROGATES, (lone) => `\\u${lone.charCodeAt(0).toString(16)}`);
}

/** The order of UTF-8, which is not that of JavaScript's strings where one of them leaves the first plane. */
function byCodePoint(left: string, right: string): number {
  const shorter = Math.min(left.length, right.length);
  for (let at = 0; at < shorter; at++) {
    const difference = left.charCodeAt(at) - right.charCodeAt(at);
    if (difference !== 0) return aboveBmp(left, at) - aboveBmp(right, at) || difference;
  }
  return left.length - right.length;
}

function aboveBmp(text: string, at: number): number {
  const unit = text.charCodeAt(at);
  return unit >= 0xd800 && unit <= 0xdfff ? 1 : 0;
}
