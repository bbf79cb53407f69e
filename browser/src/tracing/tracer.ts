/** Which TracerProvider the shim's own spans come from. */

import { ProxyTracerProvider, type Tracer, type TracerProvider, trace as traceApi } from "@opentelemetry/api";
import { VERSION } from "../identity/version.js";
import { warnOnce } from "../identity/warnings.js";

export const SCOPE_NAME = "neatlogs-otel";

let chosen: TracerProvider | undefined;

/**
 * Takes the shim's own spans from `provider`; `undefined` means the global one again.
 *
 * @returns What was chosen before, so that a test can put it back.
 */
export function useTracerProvider(provider: TracerProvider | undefined): TracerProvider | undefined {
  const before = chosen;
  chosen = provider;
  return before;
}

/** The provider in use: the chosen one, else the global one; `undefined` where the application has set none. */
export function tracerProvider(): TracerProvider | undefined {
  if (chosen !== undefined) return chosen;
  const found = traceApi.getTracerProvider();
  // The global one stands for whichever provider is registered; only what it stands for tells whether there is one.
  const delegate = "getDelegate" in found ? (found as ProxyTracerProvider).getDelegate() : found;
  return delegate.constructor.name === UNSET.constructor.name ? undefined : delegate;
}

/** What the API uses until a provider is registered. Compared by name: another copy of the API has another class. */
const UNSET = new ProxyTracerProvider().getDelegate();

/** Whether there is a provider at all. Says once where there is none, so that nothing will be recorded. */
export function isSetUp(): boolean {
  if (tracerProvider() !== undefined) return true;
  warnOnce(
    "no_provider",
    "",
    "No TracerProvider is set, so nothing is recorded: call init() at the start of the program, or set up " +
      "OpenTelemetry with an EndUserSpanProcessor among the span processors of its TracerProvider.",
  );
  return false;
}

/** The tracer of the shim's own spans. */
export function tracer(): Tracer {
  isSetUp();
  return (tracerProvider() ?? traceApi.getTracerProvider()).getTracer(SCOPE_NAME, VERSION);
}
