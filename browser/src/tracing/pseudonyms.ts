/**
 * Pseudonyms: what stands for an end-user id outside, made with a key that stays inside.
 *
 *     pseudonym = key id ":" hex(HMAC-SHA-256(secret, "neatlogs.end_user.id" NUL id))
 *
 * The hexadecimal digits are lower case, 64 of them, never fewer: a shortened pseudonym merges two end users. The id is
 * its UTF-8 bytes as they came, without any normal form. The attribute's key in front of it separates this use of a
 * secret from any other. The processor and the Python shim make the same. https://www.rfc-editor.org/rfc/rfc2104
 */

import { createHmac } from "node:crypto";
import { END_USER_ID, isBlank } from "../identity/conventions.js";

/** A shorter secret could be guessed before an id is. */
const MIN_SECRET_BYTES = 32;
const KEY_ID = /^[A-Za-z0-9][A-Za-z0-9_-]{0,15}$/;
const PSEUDONYM = /^([A-Za-z0-9][A-Za-z0-9_-]{0,15}):[0-9a-f]{64}$/;
const HEX = /^[0-9A-Fa-f]+$/;
const BASE64 = /^([A-Za-z0-9+/_-]+)={0,2}$/;
const WRONG_SECRET = "a secret is written in hexadecimal digits (an even number of them) or base64";

interface Key {
  readonly keyId: string;
  readonly secret: Buffer;
}

/** The keys of a file: the first one writes, all of them are known. */
export class PseudonymKeys {
  readonly #keys: readonly [Key, ...Key[]];

  constructor(keys: readonly [Key, ...Key[]]) {
    this.#keys = keys;
  }

  /**
   * What leaves for an id. What is a pseudonym of a known key already stays as it is, so that a shim and a processor come
   * to the same; so does an id that names nobody.
   */
  pseudonym(endUserId: string): string {
    if (isBlank(endUserId) || this.#isPseudonym(endUserId)) return endUserId;
    const [{ keyId, secret }] = this.#keys;
    return `${keyId}:${createHmac("sha256", secret).update(`${END_USER_ID}\0${endUserId}`, "utf8").digest("hex")}`;
  }

  #isPseudonym(text: string): boolean {
    const keyId = PSEUDONYM.exec(text)?.[1];
    return keyId !== undefined && this.#keys.some((key) => key.keyId === keyId);
  }
}

/**
 * Reads a file of keys: `key-id secret`, one a line; empty lines, `#` lines and a byte order mark are skipped. A secret
 * of hexadecimal digits alone is read as such, every other one as base64 (of either alphabet, with or without padding).
 *
 * @throws TypeError It holds no key, or a line cannot be used. The message names the line and repeats nothing of it.
 */
export function parseKeys(text: string): PseudonymKeys {
  const keys: Key[] = [];
  for (const [index, line] of text
    .replace(/^\uFEFF/, "")
    .split(/\r\n|\r|\n/)
    .entries()) {
    const words = line.split(/[ \t]+/).filter((word) => word !== "");
    if (words[0] === undefined || words[0].startsWith("#")) continue;
    const key = keyOf(words, `line ${index + 1}`);
    if (keys.some((known) => known.keyId === key.keyId || known.secret.equals(key.secret))) {
      throw new TypeError(`line ${index + 1}: this key id or this secret is there twice`);
    }
    keys.push(key);
  }
  const [first, ...others] = keys;
  if (first === undefined) throw new TypeError("it holds no key; write one a line: key-id secret");
  return new PseudonymKeys([first, ...others]);
}

function keyOf(words: readonly string[], place: string): Key {
  const [keyId = "", written] = words;
  if (words.length !== 2 || written === undefined) throw new TypeError(`${place}: write key-id secret`);
  if (!KEY_ID.test(keyId)) {
    throw new TypeError(
      `${place}: a key id has 1 to 16 letters, digits, dashes and underscores, and begins with none of those two`,
    );
  }
  const secret = decoded(written);
  if (secret === undefined) throw new TypeError(`${place}: ${WRONG_SECRET}`);
  if (secret.length < MIN_SECRET_BYTES) {
    throw new TypeError(`${place}: a secret has at least ${MIN_SECRET_BYTES} bytes; openssl rand -hex 32 makes one`);
  }
  return { keyId, secret };
}

function decoded(written: string): Buffer | undefined {
  if (HEX.test(written)) return written.length % 2 === 0 ? Buffer.from(written, "hex") : undefined;
  const digits = BASE64.exec(written)?.[1];
  // Four digits are three bytes, and one digit is none.
  return digits === undefined || digits.length % 4 === 1 ? undefined : Buffer.from(digits, "base64");
}
