/** End-user identity in OpenTelemetry traces, for Node: one end user per trace, owned by the root span. */

export { EndUser } from "../identity/end-user.js";
