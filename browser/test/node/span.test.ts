/** `span()`: a span around each call of a function, synchronous, asynchronous or a generator. */

import { setTimeout as pause } from "node:timers/promises";
import { SpanStatusCode, trace as traceApi } from "@opentelemetry/api";
import { describe, expect, it } from "vitest";
import { setEndUser, span, trace } from "../../src/node/index.js";
import { recorded, said, saidOnce, startUnused } from "../support/recording.js";

startUnused();

const activeName = () => (traceApi.getActiveSpan() as { name?: string } | undefined)?.name;

describe("a function", () => {
  it("keeps its name, length, properties, this, arguments and result", () => {
    recorded();
    function add(this: { base: number }, one: number, two: number): number {
      return this.base + one + two;
    }
    add.unit = "points";
    const decorated = span({ kind: "TOOL" }, add);
    expect(decorated.call({ base: 1 }, 2, 3)).toBe(6);
    expect([decorated.name, decorated.length, decorated.unit]).toEqual(["add", 2, "points"]);
    expect(new (span({}, class Thing {} as never) as unknown as new () => object)().constructor.name).toBe("Thing");
  });

  it("gets its name and kind on the span; span(fn) alone will do", () => {
    const recording = recorded();
    span(function search() {})();
    span({ name: "find", kind: "Tool" }, () => undefined)();
    expect(recording.named("search").attributes["openinference.span.kind"]).toBe("CHAIN");
    expect(recording.named("find").attributes).toMatchObject({
      "neatlogs.span.kind": "tool",
      "openinference.span.kind": "TOOL",
    });
  });

  it("names the end user of each call by its arguments", async () => {
    const recording = recorded();
    const options = {
      endUserId: (request: { user: number }) => request.user,
      endUserMetadata: (_: unknown, plan: string) => ({ plan }),
      sessionId: (request: { user: number }) => `session-${request.user}`,
    };
    const chat = span(options, async function chat(_request: { user: number }, _plan: string) {
      await pause(1);
    });
    await Promise.all([1, 2, 3].map((user) => chat({ user }, user === 2 ? "pro" : "free")));
    const found = recording.spans.map(({ attributes }) => [
      attributes["neatlogs.end_user.id"],
      attributes["neatlogs.end_user.metadata"],
      attributes["neatlogs.session.id"],
    ]);
    expect(found).toEqual([
      ["1", '{"plan":"free"}', "session-1"],
      ["2", '{"plan":"pro"}', "session-2"],
      ["3", '{"plan":"free"}', "session-3"],
    ]);
  });

  it("records what it throws or rejects with, which passes as the same object", async () => {
    const recording = recorded();
    const error = new TypeError("no");
    const fail = () => {
      throw error;
    };
    expect(span({ name: "throws" }, fail)).toThrow(error);
    await expect(span({ name: "rejects" }, async () => fail())()).rejects.toBe(error);
    for (const name of ["throws", "rejects"]) {
      const { status, events } = recording.named(name);
      expect(status).toEqual({ code: SpanStatusCode.ERROR, message: "TypeError: no" });
      expect(events.map((event) => event.name)).toEqual(["exception"]);
    }
  });

  it("that throws something odd gives it back unchanged", () => {
    const recording = recorded();
    for (const odd of [undefined, null, "text", 5, Object.create(null)]) {
      let caught: unknown = "nothing";
      try {
        span({ name: "odd" }, () => {
          throw odd;
        })();
      } catch (error) {
        caught = error;
      }
      expect(caught).toBe(odd);
    }
    expect(recording.spans.map((one) => one.status.code)).toEqual(Array(5).fill(SpanStatusCode.ERROR));
  });

  it("that is cancelled by an AbortSignal is no error", async () => {
    const recording = recorded();
    const cancelled = span({ name: "wait" }, () => pause(60_000, undefined, { signal: AbortSignal.abort() }));
    await expect(cancelled()).rejects.toThrow("aborted");
    expect(recording.named("wait").status.code).toBe(SpanStatusCode.UNSET);
  });

  it("that returns a lazy thenable is followed without being started", async () => {
    const recording = recorded();
    let started = 0;
    const query = {
      conditions: [] as string[],
      where(condition: string) {
        this.conditions.push(condition);
        return this;
      },
      // biome-ignore lint/suspicious/noThenProperty: so are query builders made
      then(onFulfilled: (rows: string[]) => unknown) {
        started += 1;
        expect(activeName()).toBe("select");
        return Promise.resolve(this.conditions).then(onFulfilled);
      },
    };
    const select = span({ name: "select" }, () => query);
    const built = select().where("a").where("b");
    expect([started, recording.spans.length]).toEqual([0, 0]);
    expect(await built).toEqual(["a", "b"]);
    expect(started).toBe(1);
    expect(recording.named("select").ended).toBe(true);
  });

  it("captures arguments and result where asked, after the masks of the blocks around it", () => {
    const recording = recorded();
    const answer = span(
      { name: "answer", captureInput: true, captureOutput: true, mask: ({ "input.value": _, ...rest }) => rest },
      (question: string) => ({ question, text: "42" }),
    );
    const mask = (content: Record<string, unknown>) =>
      Object.fromEntries(Object.entries(content).map(([key, value]) => [key, String(value).replace("secret", "***")]));
    trace({ name: "chat", mask, attributes: { note: "a secret" } }, () => answer("a secret?"));
    expect(recording.named("answer").attributes).toMatchObject({
      "output.value": '{"question":"a ***?","text":"42"}',
      "output.mime_type": "application/json",
    });
    expect(recording.named("answer").attributes).not.toHaveProperty("input.value");
    expect(recording.named("chat").attributes.note).toBe("a ***");
  });

  it("loses its content, not its end user, to a mask that throws", () => {
    const recording = recorded();
    const mask = () => {
      throw new Error("broken");
    };
    span({ name: "answer", endUserId: "alice", captureInput: true, mask }, (_: string) => undefined)("secret");
    expect(recording.identity("answer")).toEqual(["alice", undefined, "span"]);
    expect(JSON.stringify(recording.named("answer").attributes)).not.toContain("secret");
    saidOnce("mask", "Error");
  });

  it("is needed: anything else is returned as it is, with a warning", () => {
    expect(span({ name: "x" }, 5 as never)).toBe(5);
    saidOnce("function");
  });
});

describe("a generator", () => {
  it("has a span from its first step to its last, active in each step and not between them", () => {
    const recording = recorded();
    const words = span(
      { name: "words", endUserId: (user: string) => user, captureOutput: true },
      function* (_user: string) {
        const got: unknown = yield `${activeName()} `;
        yield `${got} ${activeName()}`;
        return "end";
      },
    );
    const generator = words("alice");
    expect(recording.spans).toHaveLength(0);
    expect(generator.next().value).toBe("words ");
    expect(activeName()).toBeUndefined();
    expect(generator.next("sent").value).toBe("sent words");
    expect(generator.next()).toEqual({ value: "end", done: true });
    expect(recording.idOf("words")).toBe("alice");
    expect(recording.named("words").attributes["output.value"]).toBe("words sent words");
  });

  it("that never starts has no span", () => {
    const recording = recorded();
    span(function* never() {
      yield 1;
    })();
    expect(recording.spans).toEqual([]);
  });

  it("that is left early cleans up under its span, which is no error", () => {
    const recording = recorded();
    let cleanedUnder: string | undefined;
    const words = span(function* words() {
      try {
        yield 1;
      } finally {
        cleanedUnder = activeName();
      }
    });
    for (const _ of words()) break;
    expect(cleanedUnder).toBe("words");
    expect(recording.named("words").status.code).toBe(SpanStatusCode.UNSET);
  });

  it("passes what is thrown into it on, and records what it throws", () => {
    const recording = recorded();
    const words = span(function* words() {
      try {
        yield 1;
      } catch (error) {
        yield `caught ${(error as Error).message}`;
      }
      throw new RangeError("over");
    });
    const generator = words();
    generator.next();
    expect(generator.throw(new Error("in")).value).toBe("caught in");
    expect(() => generator.next()).toThrow(RangeError);
    expect(recording.named("words").status.code).toBe(SpanStatusCode.ERROR);
  });
});

describe("an asynchronous generator", () => {
  const stream = span({ name: "stream", endUserId: (user: string) => user }, async function* stream(user: string) {
    for (let at = 0; at < 3; at++) {
      await pause(1);
      traceApi.getTracer("x");
      yield `${user}:${activeName()}`;
    }
  });

  it("consumed beside others keeps its own span, and nothing stays active in its consumer", async () => {
    const recording = recorded();
    const [one, two] = [stream("alice"), stream("bob")];
    for (let at = 0; at < 3; at++) {
      expect((await one.next()).value).toBe("alice:stream");
      expect(activeName()).toBeUndefined();
      expect((await two.next()).value).toBe("bob:stream");
    }
    await Promise.all([one.next(), two.next()]);
    const ids = recording.spans.map((span) => span.attributes["neatlogs.end_user.id"]);
    expect(ids).toEqual(["alice", "bob"]);
  });

  it("that is left early ends its span", async () => {
    const recording = recorded();
    for await (const _ of stream("alice")) break;
    expect(recording.idOf("stream")).toBe("alice");
    expect(recording.named("stream").status.code).toBe(SpanStatusCode.UNSET);
  });

  it("consumed inside another request never names that one's end user", async () => {
    const recording = recorded();
    const naming = span({ name: "naming" }, async function* () {
      yield 1;
      setEndUser("alice");
      yield 2;
    });
    const reading = naming();
    await reading.next();
    await trace({ name: "other", endUserId: "bob" }, async () => {
      await reading.next();
      await reading.return(undefined);
    });
    expect([recording.idOf("naming"), recording.idOf("other")]).toEqual(["alice", "bob"]);
    expect(said).toEqual([]);
  });
});
