import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { DEFAULT_ENDPOINT } from "../../src/browser/client.js";
import {
  Neatlogs,
  type NeatlogsError,
  type NeatlogsOptions,
  type SpanInput,
  type TraceInput,
} from "../../src/browser/index.js";
import { counts, onWarning, reset } from "../../src/identity/warnings.js";
import { attributesOf, OtlpReceiver } from "../support/otlp-receiver.js";

let receiver: OtlpReceiver;
let errors: NeatlogsError[];
let warnings: string[];

beforeEach(async () => {
  receiver = await OtlpReceiver.start();
  errors = [];
  warnings = [];
  reset();
  onWarning((message) => warnings.push(message));
});

afterEach(async () => {
  onWarning(undefined);
  await receiver.stop();
});

function client(options: NeatlogsOptions = {}): Neatlogs {
  return new Neatlogs({ endpoint: receiver.endpoint, onError: (error) => errors.push(error), ...options });
}

/** What the root that came last says of its end user: id, metadata, source. */
function identity(): unknown[] {
  const root = attributesOf(receiver.requests.at(-1)?.spans[0]);
  return ["id", "metadata", "source"].map((part) => root[`neatlogs.end_user.${part}`]);
}

async function identityOf(options: NeatlogsOptions, said: Partial<TraceInput> = {}): Promise<unknown[]> {
  expect(await client(options).trackAI({ name: "chat", ...said })).toMatchObject({ ok: true });
  return identity();
}

const NOBODY = [undefined, undefined, undefined];

describe("who a trace belongs to", () => {
  it("is the client's default", async () => {
    expect(await identityOf({ endUser: "u_1", endUserMetadata: { plan: "pro" } })).toEqual([
      "u_1",
      '{"plan":"pro"}',
      "init",
    ]);
    expect(await identityOf({ endUserId: 7 })).toEqual(["7", undefined, "init"]);
  });

  it("is whom the call names, without the default's metadata", async () => {
    const options = { endUser: "u_1", endUserMetadata: { plan: "pro" } };
    expect(await identityOf(options, { endUser: "u_2" })).toEqual(["u_2", undefined, "trace"]);
    expect(await identityOf(options, { endUserId: "u_2", endUserMetadata: { a: 1 } })).toEqual([
      "u_2",
      '{"a":1}',
      "trace",
    ]);
  });

  it("gets the metadata of a call that has nothing but metadata, over the default's", async () => {
    const options = { endUser: "u_1", endUserMetadata: { plan: "pro", seats: 3 } };
    expect(await identityOf(options, { endUserMetadata: { plan: "free" } })).toEqual([
      "u_1",
      '{"plan":"free","seats":3}',
      "init",
    ]);
  });

  it("never gets a default's metadata alone beside the id of a call", async () => {
    expect(await identityOf({ endUserMetadata: { plan: "pro" } }, { endUser: "u_2" })).toEqual([
      "u_2",
      undefined,
      "trace",
    ]);
  });

  it.each([true, Number.NaN, {}, [], "u".repeat(1025), "\ud800", Symbol("u")])(
    "is nobody where the call's id cannot be used (%#), and certainly not the default",
    async (endUser) => {
      expect(await identityOf({ endUser: "u_1" }, { endUser: endUser as string })).toEqual(NOBODY);
      expect(counts().id_refused).toBe(1);
      expect(warnings.join()).not.toContain("uuuu");
    },
  );

  it.each([null, undefined, "", "  "])("is the default where the call says %j", async (endUser) => {
    expect(await identityOf({ endUser: "u_1" }, { endUser })).toEqual(["u_1", undefined, "init"]);
  });

  it("is nobody where endUser and endUserId differ, because one of them is somebody else", async () => {
    expect(await identityOf({ endUser: "u_1" }, { endUser: "u_2", endUserId: "u_3" })).toEqual(NOBODY);
    expect(await identityOf({}, { endUser: "u_2", endUserId: "u_2" })).toEqual(["u_2", undefined, "trace"]);
    expect(await identityOf({}, { endUser: 5, endUserId: "5" })).toEqual(["5", undefined, "trace"]);
  });

  it("keeps its id where the metadata cannot be used", async () => {
    const endUserMetadata = { text: "x".repeat(17_000) };
    expect(await identityOf({}, { endUser: "u_1", endUserMetadata })).toEqual(["u_1", undefined, "trace"]);
    expect(counts().metadata_refused).toBe(1);
  });

  it("may be named by attributes, which win over fields, as one unit", async () => {
    const attributes = { "neatlogs.end_user.id": "u_9", "neatlogs.end_user.metadata": '{"a":1}', "my.own": 1 };
    const said = { endUser: "u_2", endUserMetadata: { b: 2 }, attributes };
    expect(await identityOf({ endUser: "u_1" }, said)).toEqual(["u_9", '{"a":1}', "trace"]);
    expect(attributesOf(receiver.spans[0])).toMatchObject({ "my.own": "1" });
    expect(receiver.requests[0]?.body.split("neatlogs.end_user.id")).toHaveLength(2);
  });

  it("is whom setEndUser() names, over the options and getEndUser, until reset()", async () => {
    const nl = client({ endUser: "u_init", getEndUser: () => "u_asked", sessionId: "s" });
    nl.setEndUser("u_set", { plan: "pro" });
    await nl.trackAI({ name: "chat" });
    expect(identity()).toEqual(["u_set", '{"plan":"pro"}', "set_end_user"]);
    nl.reset();
    await nl.trackAI({ name: "chat" });
    expect(identity()).toEqual(["u_asked", undefined, "init"]);
    expect(attributesOf(receiver.spans.at(-1))).not.toHaveProperty("neatlogs.session.id");
  });

  it("is nobody after setEndUser() of nobody, and nobody after setEndUser() of what cannot be used", async () => {
    for (const endUser of [null, undefined, "", true as unknown as string]) {
      const nl = client({ endUser: "u_init" });
      nl.setEndUser(endUser);
      await nl.trackAI({ name: "chat" });
      expect(identity()).toEqual(NOBODY);
    }
  });

  it("gets metadata that setEndUser() adds without an id", async () => {
    const nl = client({ endUser: "u_init", endUserMetadata: { plan: "pro" } });
    nl.setEndUser(undefined, { beta: true });
    await nl.trackAI({ name: "chat" });
    expect(identity()).toEqual(["u_init", '{"beta":true,"plan":"pro"}', "init"]);
  });

  it("is asked of getEndUser at each trace; a promise or an error of it is nobody", async () => {
    let who: unknown = { endUser: "u_1", endUserMetadata: { n: 1 } };
    const nl = client({
      endUser: "u_init",
      getEndUser: () => {
        if (who === "throw") throw new Error("u_secret");
        return who as string;
      },
    });
    const seen = [];
    for (who of [who, "u_2", null, Promise.resolve("u_3"), "throw"]) {
      await nl.trackAI({ name: "chat" });
      seen.push(identity()[0]);
    }
    expect(seen).toEqual(["u_1", "u_2", "u_init", undefined, undefined]);
    expect(warnings.join()).not.toContain("u_secret");
  });
});

describe("a started trace", () => {
  it("belongs to whoever was there when it began", async () => {
    const nl = client();
    nl.setEndUser("u_before", { plan: "pro" });
    const started = nl.startTrace({ name: "chat", input: "q" });
    nl.setEndUser("u_after");
    await started.finish({ output: "a" });
    expect(identity()).toEqual(["u_before", '{"plan":"pro"}', "set_end_user"]);
    expect(attributesOf(receiver.spans[0])).toMatchObject({ "input.value": "q", "output.value": "a" });
  });

  it("may name its end user late, without the metadata of whoever it named first", async () => {
    const started = client({ endUser: "u_init" }).startTrace({
      name: "chat",
      endUserId: "u_1",
      endUserMetadata: { a: 1 },
    });
    await started.finish({ endUser: "u_2" });
    expect(identity()).toEqual(["u_2", undefined, "trace"]);
  });

  it("keeps its ids, spans the time between, and is sent once", async () => {
    const started = client().startTrace({ name: "chat", model: "m", attributes: { a: 1 } });
    const [first, second] = await Promise.all([
      started.finish({ attributes: { b: 2 }, model: undefined }),
      started.finish(),
    ]);
    expect(first).toEqual(second);
    expect(receiver.spans).toHaveLength(1);
    const [span] = receiver.spans;
    expect(started.traceparent).toBe(`00-${span?.traceId}-${span?.spanId}-01`);
    expect(BigInt(span?.endTimeUnixNano ?? 0) >= BigInt(span?.startTimeUnixNano ?? 1)).toBe(true);
    expect(attributesOf(span)).toMatchObject({ a: "1", b: "2", "llm.model_name": "m", "neatlogs.span.kind": "llm" });
    expect(counts().finished_twice).toBe(1);
  });
});

describe("spans", () => {
  it("nest as they are written, follow each other, and carry identity at the root alone", async () => {
    const children: SpanInput[] = [
      { name: "a", duration_ms: 10, children: [{ name: "a1" }] },
      { name: "b", duration_ms: 5 },
    ];
    await client({ endUser: "u_1", sessionId: "s_1" }).trace({
      name: "root",
      start: 1000,
      children,
      tags: ["x", " y "],
    });
    const [root, a, a1, b] = receiver.spans;
    expect([a?.parentSpanId, a1?.parentSpanId, b?.parentSpanId]).toEqual([root?.spanId, a?.spanId, root?.spanId]);
    const milliseconds = receiver.spans.map((span) => [
      Number(span.startTimeUnixNano) / 1e6,
      Number(span.endTimeUnixNano) / 1e6,
    ]);
    expect(milliseconds).toEqual([
      [1000, 1015],
      [1000, 1010],
      [1000, 1000],
      [1010, 1015],
    ]);
    expect(attributesOf(root)).toMatchObject({ "neatlogs.session.id": "s_1", "neatlogs.tags": "x,y" });
    for (const child of [a, a1, b]) {
      expect(Object.keys(attributesOf(child)).filter((key) => /end_user|session/.test(key))).toEqual([]);
    }
  });

  it("that begin at the same moment have ids in the order in which they are written", async () => {
    const children = Array.from({ length: 50 }, (_, number) => ({
      name: `child ${number}`,
      children: [{ name: "c" }],
    }));
    await client().trace({ name: "root", children });
    const ids = receiver.spans.slice(1).map((span) => span.spanId);
    expect(ids).toEqual([...ids].sort());
  });

  it("of a child lose what they say of an end user, and that is told once without the value", async () => {
    const nl = client({ endUser: "u_1" });
    const child = { name: "child", endUserId: "u_secret", attributes: { "neatlogs.end_user.id": "u_secret" } };
    for (let turn = 0; turn < 3; turn++) await nl.trace({ name: "root", children: [child] });
    expect(receiver.requests.map(({ body }) => body.includes("u_secret"))).toEqual([false, false, false]);
    expect(counts().override_ignored).toBe(3);
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain('"child" has no effect');
    expect(warnings[0]).not.toContain("u_secret");
  });

  it("of a root that is sent after the fact end now, and began as long ago as they took", async () => {
    const before = Date.now();
    await client().trackAI({ name: "chat", duration_ms: 1500 });
    const [span] = receiver.spans;
    expect(BigInt(span?.endTimeUnixNano ?? 0)).toBeGreaterThanOrEqual(BigInt(before) * 1_000_000n);
    expect(BigInt(span?.endTimeUnixNano ?? 0) - BigInt(span?.startTimeUnixNano ?? 0)).toBe(1_500_000_000n);
  });

  it("hold values of every type, and text that UTF-8 cannot hold is written out", async () => {
    const attributes = {
      i: 5,
      d: 1.5,
      b: true,
      l: [1, "x"],
      o: { z: 1, a: [] },
      n: Number.NaN,
      big: 2n ** 70n,
      gone: null,
    };
    await client().trace({
      score: 1,
      name: "half \ud83d and whole 🙂 \\ud83d",
      attributes: { ...attributes, "key \udc00": "v" },
    });
    const [span] = receiver.spans;
    expect(span?.name).toBe("half \\ud83d and whole 🙂 \\ud83d");
    expect(attributesOf(span)).toMatchObject({
      i: "5",
      d: 1.5,
      b: true,
      l: { values: [{ intValue: "1" }, { stringValue: "x" }] },
      o: '{"a":[],"z":1}',
      n: "NaN",
      big: (2n ** 70n).toString(),
      "key \\udc00": "v",
    });
    expect(attributesOf(span)).not.toHaveProperty("gone");
    const score = span?.attributes.find(({ key }) => key === "gen_ai.evaluation.score.value");
    expect(score?.value).toEqual({ doubleValue: 1 });
  });

  it("lose what cannot be encoded, and nothing else", async () => {
    const around: Record<string, unknown> = {};
    around.around = around;
    const span = { name: "x", input: around, output: "o", error: around, logs: [{ message: around }] };
    expect(await client({ endUser: "u_1" }).trace({ ...span, attributes: { around, a: 1 } })).toMatchObject({
      ok: true,
    });
    expect(attributesOf(receiver.spans[0])).toMatchObject({
      "output.value": "o",
      a: "1",
      "neatlogs.end_user.id": "u_1",
    });
    expect(receiver.spans[0]?.events[0]?.attributes).toEqual([]);
    expect(receiver.spans[0]?.status).toEqual({ code: 2, message: "" });
    expect(counts().field_unusable).toBe(4);
  });

  it("have logs as events", async () => {
    const logs = [{ message: "slow", level: "warn", timestamp: 2000 }, { message: { n: 1 } }];
    await client().trace({ name: "x", start: 1000, logs });
    expect(receiver.spans[0]?.events).toEqual([
      {
        name: "log",
        timeUnixNano: "2000000000",
        attributes: [
          { key: "message", value: { stringValue: "slow" } },
          { key: "level", value: { stringValue: "warn" } },
        ],
      },
      { name: "log", timeUnixNano: "1000000000", attributes: [{ key: "message", value: { stringValue: '{"n":1}' } }] },
    ]);
  });

  it("beyond a depth and a number are left out, and the rest is sent", async () => {
    let deep: SpanInput = { name: "deepest" };
    for (let level = 0; level < 200; level++) deep = { name: `level ${level}`, children: [deep] };
    expect(await client().trace(deep)).toMatchObject({ ok: true, spans: 100 });
    const wide = { name: "wide", children: Array.from({ length: 12_000 }, () => ({ name: "c" })) };
    expect(await client().trace(wide)).toMatchObject({ ok: true, spans: 10_000 });
    expect(counts().spans_left_out).toBe(2);
  });
});

describe("a client", () => {
  it("sends to the processor of this machine unless told otherwise", () => {
    expect(DEFAULT_ENDPOINT).toBe("http://localhost:4318");
  });

  it("says who sends: project, service, scope and its key", async () => {
    await client({ apiKey: " nlw_1 ", project: "shop" }).trackAI({ name: "x" });
    const [request] = receiver.requests;
    expect(request?.headers.authorization).toBe("Bearer nlw_1");
    expect(request?.headers["content-type"]).toBe("application/json");
    const { resource, scopeSpans } = JSON.parse(request?.body ?? "{}").resourceSpans[0];
    const values = attributesOf(resource);
    expect(values).toMatchObject({ "service.name": "shop", "neatlogs.project": "shop" });
    expect(scopeSpans[0].scope.name).toBe("neatlogs-otel/browser");
  });

  it.each([
    ["", "/v1/traces"],
    ["/", "/v1/traces"],
    ["/otlp/", "/otlp/v1/traces"],
    ["/v1/traces", "/v1/traces"],
  ])("sends to endpoint%s as OTLP/HTTP does", async (path, expected) => {
    await client({ endpoint: receiver.endpoint + path }).trackAI({ name: "x" });
    expect(receiver.requests[0]?.url).toBe(expected);
  });

  it.each(["nonsense", "ftp://x", 7 as unknown as string])(
    "with endpoint %j says so, and nothing throws",
    async (endpoint) => {
      const nl = client({ endpoint });
      expect(errors.map(({ reason }) => reason)).toEqual(["usage"]);
      expect(await nl.trackAI({ name: "x" })).toMatchObject({ ok: false });
      await nl.flush();
    },
  );

  it("never sends a key that no header can hold, and does not repeat it", async () => {
    await client({ apiKey: "nlw_ä" }).trackAI({ name: "x" });
    expect(receiver.requests[0]?.headers.authorization).toBeUndefined();
    expect(errors[0]?.message).not.toContain("nlw_ä");
  });

  it("that is not enabled sends nothing, and every call succeeds", async () => {
    expect(await client({ enabled: false }).trackAI({ name: "x" })).toEqual({ ok: true });
    expect(receiver.requests).toEqual([]);
  });

  it("that was shut down has sent what it had, and says that it sends no more", async () => {
    const nl = client();
    const sent = nl.trackAI({ name: "x" });
    await nl.shutdown();
    expect(receiver.spans).toHaveLength(1);
    expect(await sent).toMatchObject({ ok: true });
    expect(await nl.trackAI({ name: "y" })).toMatchObject({ ok: false });
    expect(errors.map(({ message }) => message).join()).toContain("shut down");
  });

  it("survives an onError that throws", async () => {
    const onError = () => {
      throw new Error("u_secret");
    };
    receiver.answers.push({ status: 401 });
    expect(await client({ onError }).trackAI({ name: "x" })).toMatchObject({ ok: false });
    expect(counts().on_error).toBe(1);
  });
});
