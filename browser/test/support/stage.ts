/** Where a scenario of the data file is played: with plain functions, or with asynchronous ones. */

import {
  type Attributes,
  type Context,
  context as contextApi,
  ROOT_CONTEXT,
  type Span,
  TraceFlags,
  trace as traceApi,
} from "@opentelemetry/api";
import { expect } from "vitest";
import { currentEndUser, identify, setEndUser, span, trace } from "../../src/node/index.js";
import { meaningOf, type Step } from "./cases.js";
import type { Recording } from "./recording.js";

export class Stage {
  readonly #recorded: Recording;
  readonly #async: boolean;
  readonly #spans = new Map<string, Span>();
  readonly #contexts = new Map<string, Context>();

  constructor(recorded: Recording, isAsync: boolean) {
    this.#recorded = recorded;
    this.#async = isAsync;
  }

  /** Plays the steps one after the other. */
  play(steps: readonly Step[]): unknown {
    if (!this.#async) {
      for (const step of steps) this.#take(step);
      return undefined;
    }
    return (async () => {
      for (const step of steps) {
        // Other tasks get their turn between any two steps.
        await new Promise((resolve) => setImmediate(resolve));
        await this.#take(step);
      }
    })();
  }

  #take(step: Step): unknown {
    const { inside = [], ...written } = step;
    const given = meaningOf(written) as Record<string, unknown>;
    const work = () => this.play(inside);
    switch (Object.keys(step)[0]) {
      case "trace":
        return trace({ name: String(given.trace), ...optionsOf(given), ...tagsAndAttributes(given) }, work);
      case "span":
        return this.#call(span({ name: String(given.span), ...optionsOf(given) }, work), Number(given.times ?? 1));
      case "identify":
        return identify(optionsOf(given.identify as Record<string, unknown>), work);
      case "open":
        return this.#open(given, work);
      case "remote":
        return contextApi.with(this.#remote(given), work);
      case "within":
        return contextApi.with(this.#contexts.get(String(given.within)) ?? ROOT_CONTEXT, work);
      case "set_end_user": {
        const [id, metadata] = given.set_end_user as [never, never];
        return expect(setEndUser(id, metadata)).toBe(given.returns);
      }
      case "current_end_user":
        return expectCurrent(given.current_end_user as Record<string, unknown> | null);
      case "set_attribute": {
        const [name, key, value] = given.set_attribute as [string, string, string];
        return this.#spans.get(name)?.setAttribute(key, value);
      }
      case "end":
        return this.#spans.get(String(given.end))?.end();
      case "throw":
        throw new Error(String(given.throw));
      default:
        throw new Error(`what is ${Object.keys(step)[0]}?`);
    }
  }

  /** The active context with the parent that a server instrumentation extracts from an incoming `traceparent`. */
  #remote(given: Readonly<Record<string, unknown>>): Context {
    const [traceId, spanId] = Array.isArray(given.remote) ? given.remote : [];
    const open = this.#spans.get(String(given.remote))?.spanContext();
    return traceApi.setSpanContext(contextApi.active(), {
      traceId: open?.traceId ?? traceId.toString(16).padStart(32, "0"),
      spanId: open?.spanId ?? spanId.toString(16).padStart(16, "0"),
      isRemote: true,
      traceFlags: given.remote_sampled === false ? TraceFlags.NONE : TraceFlags.SAMPLED,
    });
  }

  #call(fn: () => unknown, times: number): unknown {
    const result = fn();
    if (times <= 1) return result;
    return result instanceof Promise ? result.then(() => this.#call(fn, times - 1)) : this.#call(fn, times - 1);
  }

  #open(given: Record<string, unknown>, work: () => unknown): unknown {
    const name = String(given.open);
    const parent = "remote" in given ? this.#remote(given) : contextApi.active();
    const options = { attributes: (given.attributes ?? {}) as Attributes, root: given.new_root === true };
    const opened = this.#recorded.tracer.startSpan(name, options, parent);
    this.#spans.set(name, opened);
    const context = traceApi.setSpan(contextApi.active(), opened);
    this.#contexts.set(name, context);
    const end = () => {
      if (opened.isRecording()) opened.end();
    };
    const result = contextApi.with(context, work);
    if (result instanceof Promise) return result.finally(end);
    end();
    return result;
  }
}

function optionsOf(given: Record<string, unknown>): Record<string, never> {
  const options: Record<string, unknown> = {};
  if ("end_user_id" in given) options.endUserId = given.end_user_id;
  if ("end_user_metadata" in given) options.endUserMetadata = given.end_user_metadata;
  if ("session_id" in given) options.sessionId = given.session_id;
  return options as Record<string, never>;
}

function tagsAndAttributes(given: Record<string, unknown>): { tags?: string; attributes?: Attributes } {
  return {
    ...("tags" in given ? { tags: given.tags as string } : {}),
    ...("attributes" in given ? { attributes: given.attributes as Attributes } : {}),
  };
}

function expectCurrent(expected: Record<string, unknown> | null): void {
  const current = currentEndUser();
  if (expected === null) {
    expect(current).toBeUndefined();
    return;
  }
  expect([current?.id, current?.metadata, current?.source]).toEqual([
    expected.id,
    expected.metadata ?? {},
    expected.source,
  ]);
}
