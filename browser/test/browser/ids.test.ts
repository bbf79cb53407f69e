import { expect, it } from "vitest";
import { newSpanId, newTraceId, traceparent } from "../../src/browser/ids.js";

it("ids are those of W3C Trace Context, and no two are the same", () => {
  const ids = Array.from({ length: 1000 }, () => [newTraceId(), newSpanId()]);
  for (const [traceId, spanId] of ids) {
    expect(traceId).toMatch(/^(?!0{32})[0-9a-f]{32}$/);
    expect(spanId).toMatch(/^(?!0{16})[0-9a-f]{16}$/);
  }
  expect(new Set(ids.flat()).size).toBe(2000);
});

it("traceparent is version 00, sampled", () => {
  expect(traceparent("a".repeat(32), "b".repeat(16))).toBe(`00-${"a".repeat(32)}-${"b".repeat(16)}-01`);
});
