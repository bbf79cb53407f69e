/** What nobody holds any more: spans that are never ended, streams that are never read. */

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, it } from "vitest";
import { wrap } from "../../src/node/index.js";
import { registry } from "../../src/tracing/registry.js";
import { recorded, startUnused } from "../support/recording.js";

startUnused();

setFlagsFromString("--expose-gc");
const collect: () => void = runInNewContext("gc");

/** Collects garbage until a condition holds; what is called on that occasion runs in a turn of its own. */
async function collectUntil(condition: () => boolean): Promise<void> {
  for (let turn = 0; turn < 200 && !condition(); turn++) {
    collect();
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(condition()).toBe(true);
}

it("a root span that is dropped without ending leaves the registry", async () => {
  const recording = recorded();
  for (let at = 0; at < 10; at++) recording.tracer.startSpan("forgotten");
  expect(registry.size).toBeGreaterThan(0);
  await collectUntil(() => registry.size === 0);
});

it("the root of a wrapped call ends when its stream is dropped unread", async () => {
  const recording = recorded();
  const words = wrap(async function* words() {
    yield "one";
  });
  (() => words())();
  expect(recording.spans).toEqual([]);
  await collectUntil(() => recording.spans.length === 1);
  expect(recording.named("words").ended).toBe(true);
});

it("the root of a wrapped call stays open while its stream is held", async () => {
  const recording = recorded();
  const words = wrap(async function* words() {
    yield "one";
  });
  const stream = words();
  for (let turn = 0; turn < 20; turn++) {
    collect();
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(recording.spans).toEqual([]);
  expect((await stream.next()).value).toBe("one");
  await stream.return();
  expect(recording.named("words").ended).toBe(true);
});
