/** Our OTLP exporter. */

import { resolve } from "node:path";
import { credentials, Metadata } from "@grpc/grpc-js";
import { OTLPTraceExporter as GrpcExporter } from "@opentelemetry/exporter-trace-otlp-grpc";
import { OTLPTraceExporter as HttpExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import type { SpanExporter } from "@opentelemetry/sdk-trace-base";
import { VERSION } from "../identity/version.js";
import type { Endpoint } from "./endpoint.js";

const API_KEY_HEADER = "x-api-key";
const CLIENT_HEADER = "x-neatlogs-client";
const HEADER_VARIABLES = ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"];

/**
 * An OTLP exporter for an endpoint.
 *
 * Timeouts, compression and certificates are those of the standard `OTEL_EXPORTER_OTLP_*` variables. Headers are not
 * mixed: the API key goes only to an endpoint that was named for this library, and headers of the standard variables
 * (another vendor's token, perhaps) only to an endpoint of the standard variables.
 *
 * @param endpoint Where to and over which protocol.
 * @param apiKey Sent as `x-api-key` to an endpoint of ours.
 * @param headers What the application asked for; sent wherever it exports to.
 */
export function makeExporter(
  endpoint: Endpoint,
  apiKey: string | undefined,
  headers: Readonly<Record<string, string>>,
): SpanExporter {
  const own: Record<string, string> = {};
  if (endpoint.isOurs) {
    own[CLIENT_HEADER] = `neatlogs-otel-js/${VERSION}`;
    if (apiKey !== undefined) own[API_KEY_HEADER] = apiKey;
  }
  for (const [name, value] of Object.entries(headers)) own[name.toLowerCase()] = value;
  // The exporters add the headers of the standard variables, which they read when they are made.
  return endpoint.isOurs ? withoutVariables(HEADER_VARIABLES, () => made(endpoint, own)) : made(endpoint, own);
}

function made(endpoint: Endpoint, headers: Record<string, string>): SpanExporter {
  if (endpoint.protocol === "http/protobuf") return new HttpExporter({ url: endpoint.url, headers });
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  if (!endpoint.url.startsWith("unix:")) return new GrpcExporter({ url: endpoint.url, metadata });
  const path = resolve(endpoint.url.slice("unix:".length).replace(/^\/\/\//, "/"));
  return new GrpcExporter({ url: `unix://${path}`, metadata, credentials: credentials.createInsecure() });
}

function withoutVariables<T>(names: readonly string[], work: () => T): T {
  const hidden = new Map(names.map((name) => [name, process.env[name]]));
  try {
    for (const name of names) delete process.env[name];
    return work();
  } finally {
    for (const [name, value] of hidden) if (value !== undefined) process.env[name] = value;
  }
}
