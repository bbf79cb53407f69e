/** `trace()`, `identify()` and `setEndUser()` beyond the shared scenarios: what is said, safety, limits, context. */

import { setTimeout as pause } from "node:timers/promises";
import { context as contextApi, type Span, trace as traceApi } from "@opentelemetry/api";
import {
  InMemorySpanExporter,
  NodeTracerProvider,
  SimpleSpanProcessor,
  type SpanProcessor,
} from "@opentelemetry/sdk-trace-node";
import { describe, expect, it, test } from "vitest";
import {
  currentEndUser,
  EndUserSpanProcessor,
  identify,
  onWarning,
  setEndUser,
  span,
  trace,
} from "../../src/node/index.js";
import { MAX_OPEN_ROOTS, registry } from "../../src/tracing/registry.js";
import { useTracerProvider } from "../../src/tracing/tracer.js";
import { counts, recorded, said, saidOnce, startUnused } from "../support/recording.js";

startUnused();

/** The context that a server instrumentation extracts from an incoming `traceparent`. */
const incoming = () =>
  traceApi.setSpanContext(contextApi.active(), {
    traceId: "a1".padStart(32, "0"),
    spanId: "b1".padStart(16, "0"),
    traceFlags: 1,
    isRemote: true,
  });

describe("what is said", () => {
  const SECRET = "s3cret-person";

  test.each([
    [true],
    [SECRET.repeat(100)],
    [[SECRET]],
    [`${SECRET}\ud800`],
    [() => [SECRET]],
    [Promise.resolve(SECRET)],
    [new Proxy({}, { get: () => SECRET })],
  ])("of a refused id names place and reason, never the value: %#", (value) => {
    const recording = recorded();
    trace({ name: "chat", endUserId: value as never }, () => undefined);
    saidOnce("ndUserId", 'trace("chat")', "refused");
    expect(said[0]).not.toContain(SECRET);
    expect(recording.idOf("chat")).toBeUndefined();
  });

  test.each([
    ["enduserId", "endUserId"],
    ["endUser", "endUserId"],
    ["userId", "endUserId"],
    ["end_user_id", "endUserId"],
    ["metadata", "endUserMetadata"],
    ["session", "sessionId"],
    ["tag", "tags"],
  ])("of the option %s asks whether %s was meant", (option, meant) => {
    recorded();
    trace({ name: "chat", [option]: "alice" }, () => undefined);
    trace({ name: "chat", [option]: "alice" }, () => undefined);
    saidOnce(`"${option}"`, meant);
  });

  it("shows names escaped and cut to 100 characters", () => {
    recorded();
    trace({ name: `evil\n\u001b[31m${"x".repeat(500)}`, endUserId: true as never }, () => undefined);
    expect(said[0]).toMatch(/^[\x20-\x7e]*$/);
    expect(said[0]).not.toContain("x".repeat(101));
  });

  it("goes to console.warn unless a handler is set, and a handler that throws does no harm", () => {
    recorded();
    onWarning(() => {
      throw new Error("broken handler");
    });
    expect(trace({ name: "chat", endUserId: true as never }, () => 5)).toBe(5);
  });

  it("names the service that began the trace as its owner where only that one's span is known", () => {
    recorded({ ours: false });
    contextApi.with(incoming(), () => trace({ name: "chat", endUserId: "alice" }, () => undefined));
    saidOnce('trace("chat")', "another service");
  });

  it("of work that outlives its block names the end of the root, not the block", () => {
    const recording = recorded();
    const later: (() => void)[] = [];
    trace({ name: "request", endUserId: "alice" }, () => {
      const context = contextApi.active();
      later.push(() => contextApi.with(context, () => trace({ name: "late", endUserId: "bob" }, () => undefined)));
    });
    for (const work of later) work();
    expect(recording.idOf("late")).toBeUndefined();
    saidOnce('trace("late")', "has ended");
  });

  it("is bounded in a minute; what is held back is counted", () => {
    recorded();
    for (let at = 0; at < 50; at++) trace({ name: `chat ${at}`, endUserId: true as never }, () => undefined);
    expect(said).toHaveLength(30);
    expect(counts()).toEqual({ id_refused: 50 });
  });

  it("names the cause where no provider is set, once", () => {
    expect(trace({ name: "chat", endUserId: "alice" }, () => 5)).toBe(5);
    expect(setEndUser("alice")).toBe(false);
    saidOnce("No TracerProvider is set", "init()");
  });

  it("names the cause where no context manager is set", () => {
    recorded();
    contextApi.disable();
    trace({ name: "outer" }, () => trace({ name: "inner" }, () => undefined));
    saidOnce("context manager", "register()");
  });
});

describe("safety", () => {
  const broken: SpanProcessor = {
    onStart() {
      throw new Error("broken at the start");
    },
    onEnd() {
      throw new Error("broken at the end");
    },
    forceFlush: () => Promise.resolve(),
    shutdown: () => Promise.resolve(),
  };

  it("keeps errors of other span processors away from the application", () => {
    useTracerProvider(new NodeTracerProvider({ spanProcessors: [new EndUserSpanProcessor(), broken] }));
    expect(trace({ name: "chat", endUserId: "alice" }, () => 5)).toBe(5);
  });

  it.each([[undefined], [null], [5], [{}]])("survives the options %s", (options) => {
    recorded();
    expect(trace(options as never, () => 5)).toBe(5);
    expect(identify(options as never, () => 6)).toBe(6);
  });

  it("survives functions that are none", () => {
    recorded();
    expect(trace({ name: "chat" }, undefined as never)).toBeUndefined();
    expect(identify({ endUserId: "alice" }, undefined as never)).toBeUndefined();
    expect(said).toHaveLength(2);
  });

  it("does not turn a rejection that the application handles into one that nobody does", async () => {
    recorded();
    const unhandled: unknown[] = [];
    const listen = (error: unknown) => unhandled.push(error);
    process.on("unhandledRejection", listen);
    const fail = async () => {
      throw new Error("no");
    };
    await Promise.allSettled([
      trace({ name: "one" }, fail),
      identify({ endUserId: "alice" }, fail),
      span({ name: "two" }, fail)(),
      trace({ name: "three", endUserId: (async () => fail()) as never }, async () => 5),
    ]);
    await pause(5);
    process.off("unhandledRejection", listen);
    expect(unhandled).toEqual([]);
  });
});

describe("the provider's attribute count limit", () => {
  it("that has no room for a late end user is said, and setEndUser() tells the truth", () => {
    const recording = recorded({ limits: { attributeCountLimit: 4 } });
    const attributes = { a: 1, b: 2, c: 3, d: 4 };
    recording.tracer.startActiveSpan("server", { attributes }, (root) => {
      expect(setEndUser("alice")).toBe(false);
      root.end();
    });
    expect(recording.idOf("server")).toBeUndefined();
    saidOnce('"server"', "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT");
  });

  it("never takes an end user away that was there first", () => {
    const recording = recorded({ limits: { attributeCountLimit: 6 } });
    trace({ name: "chat", endUserId: "alice" }, (root) => {
      for (let at = 0; at < 20; at++) root.setAttribute(`k${at}`, at);
    });
    expect(recording.idOf("chat")).toBe("alice");
  });
});

describe("context", () => {
  it("is kept through promises, timers, microtasks and callbacks, without cross-talk", async () => {
    const recording = recorded();
    const deep = async (user: string, at: number): Promise<void> => {
      if (at % 4 === 0) await pause(1);
      if (at % 4 === 1) await new Promise((resolve) => setImmediate(resolve));
      if (at % 4 === 2) await new Promise<void>((resolve) => queueMicrotask(resolve));
      if (at % 4 === 3) await new Promise((resolve) => process.nextTick(resolve));
      if (at > 0) return deep(user, at - 1);
      expect(setEndUser(user)).toBe(true);
      expect(currentEndUser()?.id).toBe(user);
    };
    const users = Array.from({ length: 50 }, (_, at) => `u_${at}`);
    await Promise.all(users.map((user, at) => trace({ name: user }, () => deep(user, at % 12))));
    for (const user of users) expect(recording.idOf(user)).toBe(user);
    expect(said).toEqual([]);
  });

  it("that was lost names nobody: work handed to a queue that others drain has no end user of theirs", async () => {
    const recording = recorded();
    const queue: (() => void)[] = [];
    trace({ name: "asks", endUserId: "alice" }, () => queue.push(() => recording.tracer.startSpan("job").end()));
    trace({ name: "drains", endUserId: "bob" }, () => {
      for (const job of queue) contextApi.with(traceApi.deleteSpan(contextApi.active()), job);
    });
    expect(recording.idOf("job")).toBeUndefined();
  });
});

describe("the registry", () => {
  it("knows a root while it is open, and no longer", () => {
    const recording = recorded();
    const before = registry.size;
    trace({ name: "chat" }, () => {
      expect(registry.size).toBe(before + 1);
      recording.tracer.startSpan("child", {}, contextApi.active()).end();
      expect(registry.size).toBe(before + 1);
    });
    expect(registry.size).toBe(before);
  });

  it("is bounded: beyond that it lets go of the oldest open roots, and says so once", () => {
    const recording = recorded();
    const spans: Span[] = Array.from({ length: MAX_OPEN_ROOTS + 5 }, () => recording.tracer.startSpan("open"));
    expect(registry.size).toBe(MAX_OPEN_ROOTS);
    const last = spans.at(-1) as Span;
    expect(contextApi.with(traceApi.setSpan(contextApi.active(), last), () => setEndUser("alice"))).toBe(true);
    for (const one of spans) one.end();
    expect(registry.size).toBe(0);
    saidOnce("never ended");
  });
});

it("gives several entry spans under one traceparent each its own end user, however late it is named", async () => {
  const recording = recorded({ roots: "entry" });
  const request = (user: string) =>
    recording.tracer.startActiveSpan(`server ${user}`, {}, incoming(), async (server) => {
      await pause(1);
      await trace({ name: "chat" }, async () => {
        await pause(1);
        recording.tracer.startActiveSpan("deeper", (deeper) => {
          expect(setEndUser(user)).toBe(true);
          deeper.end();
        });
      });
      server.end();
    });
  const users = Array.from({ length: 8 }, (_, at) => `u_${at}`);
  await Promise.all(users.map(request));
  for (const user of users) expect(recording.idOf(`server ${user}`)).toBe(user);
  expect(said).toEqual([]);
});

it("knows a span that several of our span processors have seen once; the more permissive setting holds", () => {
  const both = [new EndUserSpanProcessor(), new EndUserSpanProcessor({ roots: "entry" })];
  const exporter = new InMemorySpanExporter();
  useTracerProvider(new NodeTracerProvider({ spanProcessors: [...both, new SimpleSpanProcessor(exporter)] }));
  contextApi.with(incoming(), () => trace({ name: "entry", endUserId: "alice" }, () => undefined));
  trace({ name: "root", endUserId: "bob" }, () => undefined);
  const ids = exporter.getFinishedSpans().map((one) => one.attributes["neatlogs.end_user.id"]);
  expect(ids).toEqual(["alice", "bob"]);
});

it("refuses a setting that is none", () => {
  expect(() => new EndUserSpanProcessor({ roots: "child" as never })).toThrow('"trace" or "entry"');
});
