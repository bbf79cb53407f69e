/** The behaviour of the shim as data (`tests/data/shim_cases.json`), which the Python shim runs too. */

import { SpanStatusCode } from "@opentelemetry/api";
import { describe, expect, it, test } from "vitest";
import * as keys from "../../src/identity/conventions.js";
import { encodeSession, endUserFrom } from "../../src/identity/end-user.js";
import { setProcessDefault } from "../../src/identity/process-default.js";
import { identify, trace } from "../../src/node/index.js";
import { CASES, meaningOf, type Scenario } from "../support/cases.js";
import { counts, type Recording, recorded, said, startUnused } from "../support/recording.js";
import { Stage } from "../support/stage.js";

startUnused();

describe("an id becomes the text that the data file says, or is refused", () => {
  test.each(CASES.ids)("$about", ({ value, text, refused }) => {
    if (refused) expect(() => keys.encodeId(meaningOf(value))).toThrow(keys.RefusedError);
    else expect(keys.encodeId(meaningOf(value))).toBe(meaningOf(text) ?? undefined);
  });
});

describe("metadata becomes the JSON that the data file says, to the byte, or is refused", () => {
  test.each(CASES.metadata)("$about", ({ value, json, bytes, refused }) => {
    if (refused) expect(() => keys.encodeMetadata(meaningOf(value))).toThrow(keys.RefusedError);
    else if (bytes !== undefined) expect(Buffer.byteLength(keys.encodeMetadata(meaningOf(value)) ?? "")).toBe(bytes);
    else expect(keys.encodeMetadata(meaningOf(value))).toBe(json ?? undefined);
  });
});

describe("tags become the text that the data file says, or are refused", () => {
  test.each(CASES.tags)("$about", ({ value, text, refused }) => {
    if (refused) expect(() => keys.encodeTags(meaningOf(value))).toThrow(keys.RefusedError);
    else expect(keys.encodeTags(meaningOf(value))).toBe(text ?? undefined);
  });
});

describe("a key lies in the identity namespace where the data file says so", () => {
  test.each(CASES.identity_keys)("%s: %s", (key, inside) => {
    expect(keys.isIdentityKey(key)).toBe(inside);
  });
});

describe("of any sources that name somebody, the first of the data file's ranks wins with its own metadata", () => {
  const combinations = Array.from({ length: 2 ** CASES.ranks.length }, (_, bits) =>
    CASES.ranks.filter((_source, at) => bits & (1 << at)),
  );
  const identityOf = (source: string) => ({ endUserId: `by-${source}`, endUserMetadata: { from: source } });

  test.each(combinations.map((present) => ({ present })))("$present", ({ present }) => {
    const onResource = { [keys.END_USER_ID]: "by-resource", [keys.END_USER_METADATA]: '{"from":"resource"}' };
    const recording = recorded({ resource: present.includes("resource") ? onResource : {} });
    if (present.includes("init")) setDefault({ end_user_id: "by-init", end_user_metadata: { from: "init" } });
    identify(present.includes("identify") ? identityOf("identify") : {}, () =>
      trace({ name: "chat", ...(present.includes("trace") ? identityOf("trace") : {}) }, () => undefined),
    );
    const [winner] = present;
    const expected = winner === undefined ? [] : [`by-${winner}`, { from: winner }, winner];
    expect(recording.identity("chat").filter((part) => part !== undefined)).toEqual(expected);
  });
});

function setDefault(init: Readonly<Record<string, unknown>>): void {
  setProcessDefault({
    endUser: endUserFrom("init", init.end_user_id, init.end_user_metadata, "init()"),
    sessionId: encodeSession(init.session_id, "init()"),
    autoSession: init.auto_session === true,
  });
}

/** What a span says in the data file's words. */
function saidOf(recording: Recording, name: string): Record<string, unknown> {
  const { attributes, status } = recording.named(name);
  const [id, metadata, source] = recording.identity(name);
  const all = {
    id,
    metadata,
    source,
    session: attributes[keys.SESSION_ID],
    tags: attributes[keys.TAGS],
    error: status.code === SpanStatusCode.ERROR || undefined,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

async function play(scenario: Scenario, isAsync: boolean): Promise<void> {
  const recording = recorded({
    roots: scenario.roots ?? "trace",
    ours: scenario.span_processor ?? true,
    sampled: scenario.sampled ?? true,
    ...(scenario.value_length_limit ? { limits: { attributeValueLengthLimit: scenario.value_length_limit } } : {}),
    ...(scenario.resource ? { resource: scenario.resource } : {}),
  });
  setDefault(meaningOf(scenario.init ?? {}) as Record<string, unknown>);
  const stage = new Stage(recording, isAsync);
  const played = async () => stage.play(scenario.steps);
  if (scenario.throws !== undefined) await expect(played()).rejects.toThrow(scenario.throws);
  else await played();
  const spans = Object.keys(scenario.spans).map((name) => [name, saidOf(recording, name)]);
  expect(Object.fromEntries(spans)).toEqual(scenario.spans);
  const warnings = scenario.warnings ?? {};
  expect(counts()).toEqual(warnings);
  expect(said).toHaveLength(scenario.lines ?? Object.values(warnings).reduce((sum, count) => sum + count, 0));
  if (scenario.sampled === false) expect(recording.spans).toEqual([]);
}

describe("a scenario ends with the spans and the warnings that the data file says", () => {
  describe.each(CASES.scenarios)("$name: $about", (scenario) => {
    it("with plain functions", () => play(scenario, false));
    it("with asynchronous functions", () => play(scenario, true));
  });
});
