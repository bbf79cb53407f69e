import { ROOT_CONTEXT, trace } from "@opentelemetry/api";
import { InMemorySpanExporter, SimpleSpanProcessor, WebTracerProvider } from "@opentelemetry/sdk-trace-web";
import { afterEach, beforeEach, expect, it } from "vitest";
import { EndUserSpanProcessor, type IdentityOptions } from "../../src/browser/index.js";
import { counts, onWarning, reset } from "../../src/identity/warnings.js";

let exporter: InMemorySpanExporter;
let warnings: string[];

beforeEach(() => {
  exporter = new InMemorySpanExporter();
  warnings = [];
  reset();
  onWarning((message) => warnings.push(message));
});

afterEach(() => onWarning(undefined));

function setUp(options: IdentityOptions = {}) {
  const endUser = new EndUserSpanProcessor(options);
  const provider = new WebTracerProvider({ spanProcessors: [endUser, new SimpleSpanProcessor(exporter)] });
  const tracer = provider.getTracer("page");
  const root = (attributes = {}) => tracer.startSpan("root", { attributes }, ROOT_CONTEXT);
  const child = (parent: ReturnType<typeof root>, attributes = {}) =>
    tracer.startSpan("child", { attributes }, trace.setSpan(ROOT_CONTEXT, parent));
  return { endUser, root, child };
}

function attributes(): Record<string, unknown>[] {
  return exporter.getFinishedSpans().map((span) => span.attributes);
}

it("puts the end user on roots alone", () => {
  const { root, child } = setUp({ endUser: "u_1", endUserMetadata: { plan: "pro" }, sessionId: "s_1" });
  const open = root({ a: 1 });
  child(open).end();
  open.end();
  expect(attributes()).toEqual([
    {},
    {
      a: 1,
      "neatlogs.end_user.id": "u_1",
      "neatlogs.end_user.metadata": '{"plan":"pro"}',
      "neatlogs.end_user.source": "init",
      "neatlogs.session.id": "s_1",
    },
  ]);
});

it("leaves a root alone that names an end user or a session itself", () => {
  const { root } = setUp({ endUser: "u_1", endUserMetadata: { plan: "pro" }, sessionId: "s_1" });
  root({ "neatlogs.end_user.id": "u_own", "neatlogs.session.id": "s_own" }).end();
  expect(attributes()).toEqual([{ "neatlogs.end_user.id": "u_own", "neatlogs.session.id": "s_own" }]);
});

it("follows login and logout, and spans that are open keep whom they had", () => {
  const { endUser, root } = setUp();
  const before = root();
  endUser.setEndUser("u_1");
  const during = root();
  endUser.reset();
  const after = root();
  for (const span of [before, during, after]) span.end();
  expect(attributes().map((all) => all["neatlogs.end_user.id"])).toEqual([undefined, "u_1", undefined]);
});

it("says once that an end user on a child has no effect, without the value", () => {
  const { root, child } = setUp();
  const open = root();
  for (let turn = 0; turn < 2; turn++) child(open, { "neatlogs.end_user.id": "u_secret" }).end();
  expect(counts().override_ignored).toBe(2);
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).not.toContain("u_secret");
});

it("knows roots and children of OpenTelemetry-JS 1 as well", () => {
  const endUser = new EndUserSpanProcessor({ endUser: "u_1" });
  const started = (parentSpanId: string | undefined) => {
    const found: Record<string, string> = {};
    const span = {
      name: "x",
      attributes: {},
      parentSpanId,
      setAttribute: (key: string, value: string) => (found[key] = value),
    };
    endUser.onStart(span);
    return Object.keys(found);
  };
  expect(started("00f067aa0ba902b7")).toEqual([]);
  expect(started("0000000000000000")).toContain("neatlogs.end_user.id");
  expect(started(undefined)).toContain("neatlogs.end_user.id");
});

it("never throws, whatever it gets", () => {
  const endUser = new EndUserSpanProcessor(undefined);
  const span = {
    name: "x",
    get attributes(): Record<string, unknown> {
      throw new Error("u_secret");
    },
    setAttribute: () => undefined,
  };
  endUser.setEndUser("u_1");
  endUser.onStart(span);
  endUser.onEnd({ name: "x", attributes: {}, parentSpanContext: { spanId: "00f067aa0ba902b7" } });
  expect(counts().internal).toBe(1);
  expect(warnings.join()).not.toContain("u_secret");
});
