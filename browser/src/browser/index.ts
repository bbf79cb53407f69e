/** End-user identity in traces of web pages: one end user per trace, owned by the root span. */

export { EndUser, type EndUserId, type EndUserMetadata } from "../identity/end-user.js";
export { onWarning, type WarningHandler } from "../identity/warnings.js";
export { Neatlogs, Neatlogs as default, type NeatlogsOptions, type StartedTrace, type TraceInput } from "./client.js";
export type { EndUserInput, IdentityOptions } from "./client-identity.js";
export type { TrackResult } from "./delivery.js";
export { NeatlogsError, type Reason } from "./errors.js";
export type { LogInput, SpanInput, Time, Tokens } from "./fields.js";
export { EndUserSpanProcessor } from "./span-processor.js";
