/** An isolated provider with our span processor, recording in memory what leaves it, before any rule is enforced. */

import { context as contextApi, type Tracer, trace as traceApi } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { resourceFromAttributes } from "@opentelemetry/resources";
import {
  AlwaysOffSampler,
  InMemorySpanExporter,
  NodeTracerProvider,
  type ReadableSpan,
  SimpleSpanProcessor,
  type SpanLimits,
} from "@opentelemetry/sdk-trace-node";
import { afterEach, beforeEach, expect } from "vitest";
import * as keys from "../../src/identity/conventions.js";
import { setProcessDefault } from "../../src/identity/process-default.js";
import { counts, onWarning, reset } from "../../src/identity/warnings.js";
import { forgetNamed } from "../../src/tracing/declaring.js";
import { EndUserSpanProcessor, type Roots } from "../../src/tracing/span-processor.js";
import { useTracerProvider } from "../../src/tracing/tracer.js";

export interface RecordingOptions {
  readonly roots?: Roots;
  /** Whether the provider has a span processor of ours. */
  readonly ours?: boolean;
  readonly sampled?: boolean;
  readonly limits?: SpanLimits;
  readonly resource?: Record<string, string>;
}

export class Recording {
  readonly provider: NodeTracerProvider;
  readonly exporter = new InMemorySpanExporter();

  constructor(options: RecordingOptions = {}) {
    const ours =
      options.ours === false ? [] : [new EndUserSpanProcessor(options.roots ? { roots: options.roots } : {})];
    this.provider = new NodeTracerProvider({
      resource: resourceFromAttributes(options.resource ?? {}),
      spanProcessors: [...ours, new SimpleSpanProcessor(this.exporter)],
      ...(options.sampled === false ? { sampler: new AlwaysOffSampler() } : {}),
      ...(options.limits ? { spanLimits: options.limits } : {}),
    });
  }

  /** A tracer as an instrumentation would have it. */
  get tracer(): Tracer {
    return this.provider.getTracer("some.instrumentation");
  }

  /** The spans that have ended. */
  get spans(): ReadableSpan[] {
    return this.exporter.getFinishedSpans();
  }

  /** The one span of that name. */
  named(name: string): ReadableSpan {
    const found = this.spans.filter((span) => span.name === name);
    const [first] = found;
    if (first === undefined || found.length > 1) {
      throw new Error(
        `${found.length} spans are named ${name} among ${this.spans.map((span) => span.name).join(", ")}`,
      );
    }
    return first;
  }

  /** Id, decoded metadata and source of the one span of that name; `undefined` for what is not there. */
  identity(name: string): [id: unknown, metadata: unknown, source: unknown] {
    const { attributes } = this.named(name);
    const metadata = attributes[keys.END_USER_METADATA];
    return [
      attributes[keys.END_USER_ID],
      typeof metadata === "string" ? JSON.parse(metadata) : undefined,
      attributes[keys.END_USER_SOURCE],
    ];
  }

  idOf(name: string): unknown {
    return this.identity(name)[0];
  }
}

/** The warnings of the shim so far. */
export const said: string[] = [];

/** Demands that exactly one warning was said and that it holds all the parts. */
export function saidOnce(...parts: string[]): void {
  expect(said).toHaveLength(1);
  for (const part of parts) expect(said[0]).toContain(part);
}

export { counts };

/** Each test starts with a shim that nobody has used yet. */
export function startUnused(): void {
  beforeEach(() => {
    contextApi.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
    said.length = 0;
    reset();
    forgetNamed();
    onWarning((message) => said.push(message));
  });
  afterEach(() => {
    setProcessDefault(undefined);
    useTracerProvider(undefined);
    onWarning(undefined);
    traceApi.disable();
    contextApi.disable();
  });
}

/** A recording provider from which the shim takes its own spans. */
export function recorded(options: RecordingOptions = {}): Recording {
  const recording = new Recording(options);
  useTracerProvider(recording.provider);
  return recording;
}
