/** End-user identity in OpenTelemetry traces, for browsers: one end user per trace, owned by the root span. */

export { EndUser } from "../identity/end-user.js";
