// Where pages send: they speak OTLP/HTTP, while the variables mostly name the processor's OTLP/gRPC.

const VARIABLES = ["NEATLOGS_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const DEFAULT = "http://localhost:4318";

/**
 * The processor's OTLP/HTTP, from the variables that the other examples follow: the address itself where it is
 * OTLP/HTTP, else the next port, as 4318 is to 4317.
 */
export function otlpHttp(environment) {
  const named = VARIABLES.map((name) => environment[name]?.trim()).find(Boolean);
  if (named === undefined || named.startsWith("unix:")) return DEFAULT;
  const { protocol, hostname, port, pathname } = new URL(named.includes("://") ? named : `http://${named}`);
  const spoken = environment.OTEL_EXPORTER_OTLP_TRACES_PROTOCOL || environment.OTEL_EXPORTER_OTLP_PROTOCOL || "";
  const isHttp = spoken.startsWith("http") || port === "4318" || pathname !== "/" || port === "";
  const its = isHttp ? port : String(Number(port) + 1);
  return `${protocol}//${hostname}${its && `:${its}`}`;
}
