import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { attributesOf, milliseconds, type SpanInput, statusOf } from "../../src/browser/fields.js";

interface Table {
  fields: { name: string; attributes: string[] }[];
  kinds: { has: string[]; kind: string }[];
  kind_of_root: string;
  kind_of_child: string;
  status_words: Record<"error" | "ok" | "unset", string[]>;
}

/** The table that the processor's `POST /v1/trace` is held to as well. */
const table: Table = JSON.parse(
  readFileSync(new URL("../../../tests/data/plain_trace_fields.json", import.meta.url), "utf8"),
);

/** A span that has one field of the table, in its usual form. */
const SAMPLES: Record<string, Partial<SpanInput>> = {
  name: {},
  kind: { kind: "Agent" },
  input: { input: "in" },
  output: { output: { a: 1 } },
  model: { model: "gpt-4o" },
  "tokens.prompt": { tokens: { prompt: 3 } },
  "tokens.completion": { tokens: { completion: 4 } },
  "tokens.total": { tokens: { total: 7 } },
  query: { query: "where" },
  "documents[]": { documents: [{ content: "c", id: "d1", score: 0.5, metadata: { page: 1 } }] },
  tool_name: { tool_name: "search" },
  passed: { passed: true },
  score: { score: 0.25 },
  metadata: { metadata: { a: 1 } },
  status: { status: "partly" },
  error: { error: "no" },
  start: { start: 1 },
  end: { end: 1 },
  duration_ms: { duration_ms: 1 },
  attributes: { attributes: {} },
  "logs[].message": { logs: [{ message: "m" }] },
  "logs[].level": { logs: [{ message: "m", level: "warn" }] },
  "logs[].timestamp": { logs: [{ message: "m", timestamp: 1 }] },
  "children[]": { children: [] },
};

/** Fields of the root, the events and the resource; other tests look at them. */
const ELSEWHERE = new Set([
  "endUserId",
  "endUserMetadata",
  "sessionId",
  "tags",
  "project",
  "logs[].message",
  "logs[].level",
]);

const fail = (field: string): never => {
  throw new Error(`${field} was refused`);
};

function attributes(span: Partial<SpanInput>, isRoot = true): Record<string, unknown> {
  const all = Object.entries(attributesOf({ name: "x", ...span }, isRoot, fail));
  return Object.fromEntries(all.filter(([, value]) => value !== undefined));
}

describe("the table of fields", () => {
  it.each(table.fields.filter(({ name }) => !ELSEWHERE.has(name)))(
    "$name becomes the attributes that it names",
    (field) => {
      const sample = SAMPLES[field.name];
      expect(sample, "the table has a field that trackAI does not know").toBeDefined();
      const without = attributes({ kind: "chain" });
      const found = Object.keys(attributes({ kind: "chain", ...sample })).map((key) => key.replace(/\.\d+\./, ".N."));
      const added = found.filter((key) => !(key in without) || key.endsWith("span.kind"));
      expect(added.filter((key) => field.name === "kind" || !key.endsWith("span.kind")).sort()).toEqual(
        [...field.attributes].sort(),
      );
    },
  );

  it("names no field that trackAI knows and the processor does not", () => {
    const known = new Set(table.fields.map(({ name }) => name));
    expect(Object.keys(SAMPLES).filter((name) => !known.has(name))).toEqual([]);
  });

  it.each(table.kinds.flatMap(({ has, kind }) => has.map((field) => ({ field, kind }))))(
    "a span with $field and without a kind is a $kind",
    ({ field, kind }) => {
      const sample = SAMPLES[field] ?? SAMPLES[`${field}[]`] ?? SAMPLES[`${field}.total`];
      expect(attributes({ ...sample })["neatlogs.span.kind"]).toBe(kind);
      expect(attributes({ ...sample })["openinference.span.kind"]).toBe(kind.toUpperCase());
    },
  );

  it("a span that says nothing is of the table's kind", () => {
    expect(attributes({}, true)["neatlogs.span.kind"]).toBe(table.kind_of_root);
    expect(attributes({}, false)["neatlogs.span.kind"]).toBe(table.kind_of_child);
  });

  it.each(table.status_words.error)("status %j is an error", (status) => {
    expect(statusOf({ name: "x", status }, fail)).toEqual({ code: 2 });
    expect(attributes({ status: status.toUpperCase() })).not.toHaveProperty("neatlogs.status");
  });

  it.each(table.status_words.ok)("status %j is ok", (status) => {
    expect(statusOf({ name: "x", status }, fail)).toEqual({ code: 1 });
  });

  it("the name of what every object has is no status of ours", () => {
    expect(statusOf({ name: "x", status: "constructor" }, fail)).toEqual({});
    expect(attributes({ status: "constructor" })).toMatchObject({ "neatlogs.status": "constructor" });
  });

  it.each(table.status_words.unset)("status %j is unset", (status) => {
    expect(statusOf({ name: "x", status }, fail)).toEqual({});
  });
});

describe("values", () => {
  it("text stays text, anything else becomes JSON, and the type says which", () => {
    expect(attributes({ input: "hi", output: [{ role: "assistant" }] })).toMatchObject({
      "input.value": "hi",
      "input.mime_type": "text/plain",
      "output.value": '[{"role":"assistant"}]',
      "output.mime_type": "application/json",
    });
  });

  it("an input wins over a query as what went in", () => {
    expect(attributes({ input: "in", query: "q" })).toMatchObject({
      "input.value": "in",
      "gen_ai.retrieval.query.text": "q",
    });
  });

  it("zero, false and empty text are values, not absences", () => {
    expect(attributes({ passed: false, score: 0, tokens: { prompt: 0 }, input: "", output: 0 })).toMatchObject({
      "gen_ai.evaluation.score.label": "fail",
      "gen_ai.evaluation.score.value": { value: 0 },
      "gen_ai.usage.input_tokens": 0,
      "input.value": "",
      "output.value": "0",
    });
  });

  it("documents are read in the forms that libraries give them", () => {
    const documents = ["plain", { pageContent: "p", source: "a.md" }, { url: "u" }, null, { text: "t", id: 7 }];
    expect(attributes({ documents })).toMatchObject({
      "retrieval.documents.0.document.content": "plain",
      "retrieval.documents.1.document.content": "p",
      "retrieval.documents.1.document.metadata": '{"pageContent":"p","source":"a.md"}',
      "retrieval.documents.2.document.content": '{"url":"u"}',
      "retrieval.documents.4.document.content": "t",
      "retrieval.documents.4.document.id": "7",
    });
  });

  it("attributes win over all other fields", () => {
    const given = { model: "a", attributes: { "llm.model_name": "b", "my.own": 1 } };
    expect(attributes(given)).toMatchObject({ "llm.model_name": "b", "gen_ai.request.model": "a", "my.own": 1 });
  });

  it("an error is the span's status with its message", () => {
    expect(statusOf({ name: "x", error: new TypeError("broken"), status: "ok" }, fail)).toEqual({
      code: 2,
      message: "broken",
    });
    expect(statusOf({ name: "x", error: false }, fail)).toEqual({});
    expect(statusOf({ name: "x", error: "", status: "ok" }, fail)).toEqual({ code: 1 });
    expect(statusOf({ name: "x", error: { code: 5 } }, fail)).toEqual({ code: 2, message: '{"code":5}' });
  });

  const around: Record<string, unknown> = {};
  around.around = around;

  it.each([
    [{ input: around }, "input"],
    [{ output: around }, "output"],
    [{ metadata: around }, "metadata"],
    [{ documents: [around] }, "documents"],
    [{ model: 5 }, "model"],
    [{ tokens: { prompt: -1 } }, "tokens.prompt"],
    [{ tokens: { total: 1.5 } }, "tokens.total"],
    [{ documents: "one" }, "documents"],
    [{ passed: "yes" }, "passed"],
    [{ score: Number.NaN }, "score"],
    [{ kind: 1 }, "kind"],
    [{ attributes: "a=b" }, "attributes"],
    [{ status: 200 }, "status"],
  ])("%# is refused by its field's name and leaves no attribute", (given, field) => {
    const refused: string[] = [];
    const span = { name: "x", ...given } as unknown as SpanInput;
    attributesOf(span, true, (name) => refused.push(name));
    expect(new Set(refused)).toEqual(new Set([field]));
  });
});

describe("times", () => {
  it.each([
    ["2026-01-02T03:04:05Z", 1767323045000],
    ["2026-01-02T03:04:05.5+01:00", 1767319445500],
    ["2026-01-02T03:04:05", 1767323045000],
    ["2026-01-02 03:04:05", 1767323045000],
    [1767323045000.25, 1767323045000.25],
    [new Date(1767323045000), 1767323045000],
  ])("%j is a time, UTC unless it says otherwise", (given, expected) => {
    expect(milliseconds(given, "start", fail)).toBe(expected);
  });

  it.each(["yesterday", -1, Number.NaN, 1e15, true, {}, new Date("never")])("%j is none", (given) => {
    const refused: string[] = [];
    expect(milliseconds(given, "start", (field) => refused.push(field))).toBeUndefined();
    expect(refused).toEqual(["start"]);
  });
});
