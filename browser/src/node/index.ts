/**
 * End-user identity in OpenTelemetry traces, for Node: one end user per trace, owned by the root span.
 *
 *     import { init, trace } from "neatlogs-otel";
 *
 *     init({ workflowName: "support-bot" });
 *     await trace({ name: "chat", endUserId: request.user.id, endUserMetadata: { plan: "pro" } }, async () => { ... });
 *
 * `init()` sets up export; everything else also works beside an OpenTelemetry setup of your own that has an
 * `EndUserSpanProcessor`. No call here throws into the application because of a bad identity.
 */

export * as conventions from "../identity/conventions.js";
export { EndUser, type EndUserId, type EndUserMetadata, type Source } from "../identity/end-user.js";
export { onWarning, type WarningHandler } from "../identity/warnings.js";
export type { Mask } from "../tracing/content.js";
export { currentEndUser, setEndUser } from "../tracing/declaring.js";
export { type IdentifyOptions, identify } from "../tracing/identify.js";
export { type SpanOptions, span } from "../tracing/span.js";
export { EndUserSpanExporter, type EndUserSpanExporterOptions } from "../tracing/span-exporter.js";
export { EndUserSpanProcessor, type EndUserSpanProcessorOptions, type Roots } from "../tracing/span-processor.js";
export { type TraceOptions, trace } from "../tracing/trace.js";
export { wrap } from "../tracing/wrap.js";
export { EndpointError, type Protocol } from "./endpoint.js";
export { flush, type InitOptions, init, shutdown } from "./setup.js";
