import { afterEach, beforeEach, expect, it } from "vitest";
import { Delivery } from "../../src/browser/delivery.js";
import type { NeatlogsError } from "../../src/browser/errors.js";
import { keepaliveRoom } from "../../src/browser/keepalive.js";
import { OtlpReceiver } from "../support/otlp-receiver.js";

let receiver: OtlpReceiver;
let errors: NeatlogsError[];
let spans = 0;

beforeEach(async () => {
  receiver = await OtlpReceiver.start();
  errors = [];
});

afterEach(() => receiver.stop());

const ENVELOPE = ['{"resourceSpans":[{"scopeSpans":[{"spans":[', "]}]}]}"] as const;

function delivery(url = `${receiver.endpoint}/v1/traces`): Delivery {
  const pace = { firstPause: 1, longestPause: 4, timeout: 20_000 };
  return new Delivery(url, { "content-type": "application/json" }, ENVELOPE, (error) => errors.push(error), pace);
}

function trace(count: number, bytes = 10): { traceId: string; spans: string[] } {
  const made = Array.from({ length: count }, () =>
    JSON.stringify({ spanId: String(++spans), text: "x".repeat(bytes) }),
  );
  return { traceId: `trace ${spans}`, spans: made };
}

/** How many spans each request had. */
function sizes(): number[] {
  return receiver.requests.map((request) => request.spans.length);
}

it("sends traces of one moment in one request, in their order", async () => {
  const to = delivery();
  const all = [trace(1), trace(2), trace(1)];
  const results = await Promise.all(all.map((one) => to.send(one)));
  expect(results).toEqual(all.map((one) => ({ ok: true, trace_id: one.traceId, spans: one.spans.length })));
  expect(sizes()).toEqual([4]);
  expect(receiver.spans.map((span) => span.spanId)).toEqual(
    all.flatMap((one) => one.spans.map((span) => JSON.parse(span).spanId)),
  );
});

it("splits what is more than a megabyte, and sends one trace that is more by itself", async () => {
  const to = delivery();
  await Promise.all([trace(1, 600_000), trace(1, 600_000), trace(1, 2_000_000), trace(1)].map((one) => to.send(one)));
  expect(sizes()).toEqual([1, 1, 1, 1]);
  expect(errors).toEqual([]);
});

it.each([429, 502, 503, 504])("tries again after %i, with the same text", async (status) => {
  receiver.answers.push({ status }, { status, headers: { "retry-after": "0" } });
  expect(await delivery().send(trace(1))).toMatchObject({ ok: true });
  expect(new Set(receiver.requests.map((request) => request.body)).size).toBe(1);
  expect(sizes()).toEqual([1, 1, 1]);
  expect(errors).toEqual([]);
});

it("tries again after a connection that broke, and tells it once with what to do about it", async () => {
  receiver.answers.push("reset", "reset");
  expect(await delivery().send(trace(1))).toMatchObject({ ok: true });
  expect(errors.map(({ reason, spansLost }) => [reason, spansLost])).toEqual([["unreachable", 0]]);
  expect(errors[0]?.message).toContain("--cors-origins");
});

it("gives up after five tries and says how much is lost", async () => {
  for (let turn = 0; turn < 5; turn++) receiver.answers.push({ status: 503, body: '{"message":"too busy"}' });
  const to = delivery();
  const [first, second] = await Promise.all([to.send(trace(2)), to.send(trace(1))]);
  expect(first).toMatchObject({ ok: false, spans: 0, error: "503: too busy" });
  expect(second).toMatchObject({ ok: false });
  expect(sizes()).toEqual([3, 3, 3, 3, 3]);
  expect(errors.map(({ reason, spansLost }) => [reason, spansLost])).toEqual([["lost", 3]]);
});

it("does not wait for a processor that wants a pause of hours", async () => {
  receiver.answers.push({ status: 503, headers: { "retry-after": "7200" } });
  expect(await delivery().send(trace(1))).toMatchObject({ ok: false });
  expect(sizes()).toEqual([1]);
});

it("waits until a date that Retry-After names, if it is near", async () => {
  receiver.answers.push({ status: 503, headers: { "retry-after": new Date(Date.now() + 1000).toUTCString() } });
  expect(await delivery().send(trace(1))).toMatchObject({ ok: true });
});

it.each([
  [401, "apiKey"],
  [403, "--cors-origins"],
  [404, "endpoint"],
  [500, "500"],
])("does not try again after %i, and says what to do (%s)", async (status, named) => {
  receiver.answers.push({ status });
  expect(await delivery().send(trace(2))).toMatchObject({ ok: false, spans: 0 });
  expect(sizes()).toEqual([2]);
  expect(errors.map(({ reason, spansLost }) => [reason, spansLost])).toEqual([["refused", 2]]);
  expect(errors[0]?.message).toContain(named);
});

it.each([400, 413])("takes a request apart after %i, so that one trace does not cost the others", async (status) => {
  receiver.answers.push({ status }, { status: 200 }, { status });
  const to = delivery();
  const results = await Promise.all([to.send(trace(1)), to.send(trace(1)), to.send(trace(1))]);
  expect(results.map(({ ok }) => ok)).toEqual([true, false, true]);
  expect(sizes()).toEqual([3, 1, 1, 1]);
});

it("tells what the processor rejected of a request that it accepted, and what it says beside", async () => {
  receiver.answers.push(
    { status: 200, body: '{"partialSuccess":{"rejectedSpans":"1","errorMessage":"one is bad"}}' },
    { status: 200, body: '{"partialSuccess":{"errorMessage":"an override was ignored"}}' },
    { status: 200, body: "not json" },
  );
  const to = delivery();
  expect(await to.send(trace(2))).toMatchObject({ ok: false, error: expect.stringContaining("one is bad") });
  expect(await to.send(trace(1))).toMatchObject({ ok: true });
  expect(await to.send(trace(1))).toMatchObject({ ok: true });
  expect(errors.map(({ reason, spansLost }) => [reason, spansLost])).toEqual([
    ["lost", 1],
    ["warning", 0],
  ]);
});

it("keeps a bounded amount: what is beyond it is refused at once, and counted", async () => {
  const to = delivery();
  const results = await Promise.all(Array.from({ length: 20 }, () => to.send(trace(1, 1_000_000))));
  const sent = results.filter(({ ok }) => ok).length;
  expect(sent).toBe(16);
  expect(errors.reduce((sum, { spansLost }) => sum + spansLost, 0)).toBe(4);
});

it("is idle again after flush(), whatever became of the traces", async () => {
  receiver.answers.push({ status: 503 }, { status: 400 });
  const to = delivery();
  const results = [to.send(trace(1)), to.send(trace(1))];
  await to.flush();
  expect(receiver.requests.length).toBeGreaterThanOrEqual(3);
  expect((await Promise.all(results)).map(({ ok }) => ok)).toEqual([true, true]);
  await to.flush();
});

it("sends what waits when the page is hidden, also during a pause", async () => {
  receiver.answers.push({ status: 503, headers: { "retry-after": "250" } });
  const to = delivery();
  const first = to.send(trace(1));
  await expect.poll(() => receiver.requests.length).toBe(1);
  await expect
    .poll(() => {
      to.leave("hidden");
      return receiver.requests.length;
    })
    .toBeGreaterThanOrEqual(2);
  expect(await first).toMatchObject({ ok: true });
});

it("keeps what does not fit when the page is put aside, and goes on when it comes back", async () => {
  const to = delivery();
  const large = to.send(trace(1, 100_000));
  const small = to.send(trace(1));
  to.leave("aside");
  expect(await small).toMatchObject({ ok: true });
  to.wake();
  expect(await large).toMatchObject({ ok: true, spans: 1 });
  expect(errors).toEqual([]);
});

it("when the page ends sends whole traces that fit, then beginnings of others, and reports the rest", async () => {
  const to = delivery();
  const results = [trace(8, 10_000), trace(1, 70_000), trace(1), trace(2)].map((one) => to.send(one));
  to.leave("ended");
  const [wide, large, ...small] = await Promise.all(results);
  expect(small.map(({ ok }) => ok)).toEqual([true, true]);
  expect(wide).toMatchObject({ ok: false, spans: 6 });
  expect(large).toMatchObject({ ok: false, spans: 0 });
  await to.flush();
  expect(sizes()).toEqual([3, 6]);
  expect(receiver.requests.reduce((sum, { body }) => sum + Buffer.byteLength(body), 0)).toBeLessThan(64 * 1024);
  expect(errors.map(({ reason, spansLost }) => [reason, spansLost])).toEqual([["lost", 3]]);
  expect(keepaliveRoom()).toBe(60 * 1024);
});

it("after the page has ended still sends what comes at the last moment, and does not try again", async () => {
  const to = delivery();
  to.leave("ended");
  receiver.answers.push({ status: 503 });
  expect(await to.send(trace(1))).toMatchObject({ ok: false });
  expect(await to.send(trace(1))).toMatchObject({ ok: true });
  expect(sizes()).toEqual([1, 1]);
});
