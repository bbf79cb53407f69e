/**
 * Metadata by allow-list: what of a JSON object may leave, cut out of its text.
 *
 * What stays keeps its bytes: numbers of any size, escapes, repeated keys. Only the objects around what was removed are
 * written anew, without white space between their members.
 */

import { RefusedError } from "../identity/refused.js";

/** In place of names: all of it may leave. */
const EVERYTHING = "*";

const EMPTY = /^\{[ \t\n\r]*\}$/;
const SPACE = /[ \t\n\r]*/y;
const STRING = /"[^"\\]*(?:\\.[^"\\]*)*"/y;
const BRACKET_OR_STRING = /["[\]{}]/g;
const SCALAR_END = /[\s,\]}]|$/g;

/** Which members of metadata may leave. */
export class AllowedMetadata {
  readonly #names: ReadonlySet<string>;

  /**
   * @param names Keys of the object. One with dots also names a member further inside: `company.size` is the member with
   *   just that key, and the member `size` of the object `company`, the rest of which does not leave. `*` is everything.
   */
  constructor(names: Iterable<string>) {
    this.#names = new Set(names);
  }

  /**
   * What of the metadata may leave; `undefined` where nothing of it may. The same text where nothing has to go.
   *
   * @throws RefusedError It is no JSON object.
   */
  of(text: string): string | undefined {
    if (!isObject(text)) throw new RefusedError("it is no JSON object that can be read");
    if (this.#names.has(EVERYTHING)) return text;
    const [left, removed] = allowed(text, skip(SPACE, text, 0), this.#names);
    if (!removed) return text;
    return left === "{}" ? undefined : left;
  }
}

function isObject(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}

/** What may stay of the object that begins at `start`, and whether something was removed. The text is known to be JSON. */
function allowed(text: string, start: number, names: ReadonlySet<string>): [left: string, removed: boolean] {
  const kept: string[] = [];
  let removed = false;
  let at = skip(SPACE, text, start + 1);
  while (text[at] !== "}") {
    const keyEnd = skip(STRING, text, at);
    const written = text.slice(at, keyEnd);
    const key = JSON.parse(written) as string;
    // Behind the colon.
    const value = skip(SPACE, text, skip(SPACE, text, keyEnd) + 1);
    const end = endOfValue(text, value);
    const [left, cut] = names.has(key) ? [text.slice(value, end), false] : inside(text, value, below(key, names));
    removed ||= cut;
    if (left !== undefined) kept.push(`${written}:${left}`);
    at = skip(SPACE, text, end);
    if (text[at] === ",") at = skip(SPACE, text, at + 1);
  }
  return removed ? [`{${kept.join(",")}}`, true] : [text.slice(start, at + 1), false];
}

/** What may stay of a value that is not named by itself. */
function inside(text: string, start: number, names: ReadonlySet<string>): [string | undefined, boolean] {
  if (names.size === 0 || text[start] !== "{") return [undefined, true];
  const [left, removed] = allowed(text, start, names);
  return EMPTY.test(left) ? [undefined, true] : [left, removed];
}

/** The rest of the names that lead into the member with this key. */
function below(key: string, names: ReadonlySet<string>): ReadonlySet<string> {
  const start = `${key}.`;
  return new Set([...names].filter((name) => name.startsWith(start)).map((name) => name.slice(start.length)));
}

/** Where the value that begins at `start` ends. */
function endOfValue(text: string, start: number): number {
  if (text[start] === '"') return skip(STRING, text, start);
  if (text[start] !== "{" && text[start] !== "[") return find(SCALAR_END, text, start);
  let depth = 0;
  let at = start;
  do {
    at = find(BRACKET_OR_STRING, text, at);
    const found = text[at];
    if (found === '"') {
      at = skip(STRING, text, at);
    } else {
      depth += found === "{" || found === "[" ? 1 : -1;
      at += 1;
    }
  } while (depth > 0);
  return at;
}

/** The position behind what the expression matches at `at`. */
function skip(expression: RegExp, text: string, at: number): number {
  expression.lastIndex = at;
  return expression.test(text) ? expression.lastIndex : at;
}

/** The position of what the expression finds at `at` or behind it. */
function find(expression: RegExp, text: string, at: number): number {
  expression.lastIndex = at;
  return expression.exec(text)?.index ?? text.length;
}
