/** Pseudonyms and metadata by allow-list as data (`tests/data/pseudonyms.json`), which Python and the processor run too. */

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { AllowedMetadata } from "../../src/tracing/allowed-metadata.js";
import { parseKeys } from "../../src/tracing/pseudonyms.js";

interface Case {
  readonly about: string;
  readonly text: string;
  readonly id: string;
  readonly pseudonym: string;
  readonly keys: [keyId: string, secret: string][];
  readonly allow: string[];
  readonly left: string | null;
}

type Lists = "key_files" | "refused_key_files" | "ids" | "unchanged" | "metadata" | "refused_metadata";

const CASES = JSON.parse(
  readFileSync(new URL("../../../tests/data/pseudonyms.json", import.meta.url), "utf8"),
) as Readonly<Record<Lists, readonly Case[]>> & { readonly keys: string };

describe("a file of keys is read as the processor reads it", () => {
  test.each(CASES.key_files)("$about", ({ text, keys }) => {
    const found = parseKeys(text);
    for (const key of keys) {
      const made = parseKeys(key.join(" ")).pseudonym("u_812");
      expect(found.pseudonym(made)).toBe(made);
    }
    expect(found.pseudonym("u_812")).toBe(parseKeys((keys[0] ?? []).join(" ")).pseudonym("u_812"));
  });
});

describe("a file of keys that cannot be used is refused, without its words", () => {
  test.each(CASES.refused_key_files)("$about", ({ text }) => {
    expect(() => parseKeys(text)).toThrow(/^(line \d+: |it holds no key)/);
    const long = text.split(/\s+/).filter((word) => word.length > 20);
    expect(() => parseKeys(text)).not.toThrow(
      new RegExp(long.map((word) => word.replace(".", "\\.")).join("|") || "$.^"),
    );
  });
});

describe("an id becomes the pseudonym that every language makes", () => {
  test.each(CASES.ids)("$about", ({ id, pseudonym }) => {
    expect(parseKeys(CASES.keys).pseudonym(id)).toBe(pseudonym);
  });
});

describe("a pseudonym, and nobody, stay as they are", () => {
  test.each(CASES.unchanged)("$about", ({ id }) => {
    expect(parseKeys(CASES.keys).pseudonym(id)).toBe(id);
  });
});

describe("of metadata what is named leaves, byte for byte", () => {
  test.each(CASES.metadata)("$about", ({ allow, text, left }) => {
    expect(new AllowedMetadata(allow).of(text)).toBe(left ?? undefined);
  });
});

describe("what is no JSON object does not leave, whatever is allowed", () => {
  test.each(CASES.refused_metadata)("$about", ({ text }) => {
    for (const allow of [[], ["a"], ["*"]]) expect(() => new AllowedMetadata(allow).of(text)).toThrow("no JSON object");
  });
});
