/**
 * Where spans go, over which protocol, and whether our API key may go with them: one pure function.
 *
 * An endpoint comes, in this order, from `init({ endpoint })`, from `NEATLOGS_ENDPOINT`, from the standard
 * `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` and `OTEL_EXPORTER_OTLP_ENDPOINT`, or is the processor on this machine
 * (`http://localhost:4317`). The standard variables are those of
 * https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
 */

/** A protocol that the package speaks. */
export type Protocol = "grpc" | "http/protobuf";

/** Variables of the environment. */
export type Environment = Readonly<Record<string, string | undefined>>;

export const DEFAULT_ENDPOINT = "http://localhost:4317";
const TRACES_PATH = "/v1/traces";
const GRPC_PORT = "4317";
const HTTP_PORT = "4318";
const ACCEPTED = "use http://HOST:PORT, https://HOST:PORT, HOST:PORT or unix:PATH";
const ENDPOINT_VARIABLES = ["NEATLOGS_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOL_VARIABLES = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];

/** An endpoint or protocol that can never work. The message says where it came from and what is accepted. */
export class EndpointError extends Error {
  override readonly name = "EndpointError";
  /** `argument`, or the environment variable's name. */
  readonly source: string;

  constructor(message: string, source: string) {
    super(message);
    this.source = source;
  }
}

/** A resolved destination. */
export interface Endpoint {
  /** For HTTP the full URL of the traces signal; for gRPC `scheme://host:port`, or `unix:PATH`. */
  readonly url: string;
  readonly protocol: Protocol;
  /** What named it: `argument`, an environment variable, or `default`. */
  readonly source: string;
  /** Whether it was named for this library: only then our API key, and no other's headers, go there. */
  readonly isOurs: boolean;
  /** One sentence for the log where the choice is legal and looks wrong. */
  readonly note?: string | undefined;
}

/**
 * Resolves the endpoint and its protocol.
 *
 * @param argument What `init({ endpoint })` was given: `http(s)://host[:port][/path]`, `host:port` (plain text) or
 *   `unix:PATH` (gRPC).
 * @param protocol What `init({ protocol })` was given.
 * @param environment The environment variables.
 * @returns The destination. HTTP endpoints get `/v1/traces` appended unless they end with it;
 *   `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is used as it is, as its specification demands.
 * @throws EndpointError The endpoint or the protocol can never work.
 */
export function chooseEndpoint(
  argument: string | undefined,
  protocol: string | undefined,
  environment: Environment,
): Endpoint {
  const [text, source] = namedEndpoint(argument, environment);
  const isOurs = !source.startsWith("OTEL_");
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length);
    if (/^\/*$/.test(path.trim()))
      throw new EndpointError(`${label(source)} "${text}" names no socket; ${ACCEPTED}`, source);
    if (namedProtocol(protocol, environment) === "http/protobuf") {
      throw new EndpointError(`${label(source)} "${text}" is a Unix socket, which only grpc can use`, source);
    }
    return { url: text, protocol: "grpc", source, isOurs };
  }
  const url = parsed(text, source);
  const chosen = namedProtocol(protocol, environment) ?? impliedProtocol(url);
  const note = noteOn(url, chosen);
  if (chosen === "grpc") {
    // The specification lets OTEL_EXPORTER_OTLP_INSECURE decide where a gRPC endpoint has no scheme.
    if (!isOurs && !text.includes("://")) return { url: text, protocol: chosen, source, isOurs, note };
    const host = hostOf(url);
    // gRPC has no default port of its own that a reader would expect: without one it would be 443.
    const port = url.port || (url.protocol === "https:" ? "" : GRPC_PORT);
    return { url: `${url.protocol}//${host}${port && `:${port}`}`, protocol: chosen, source, isOurs, note };
  }
  let path = url.path;
  if (source !== "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" && !path.replace(/\/+$/, "").endsWith(TRACES_PATH)) {
    path = path.replace(/\/+$/, "") + TRACES_PATH;
  }
  const port = url.port && `:${url.port}`;
  return { url: `${url.protocol}//${hostOf(url)}${port}${path}${url.search}`, protocol: chosen, source, isOurs, note };
}

interface Parsed {
  readonly protocol: string;
  readonly credentials: string;
  readonly hostname: string;
  /** As written; `URL` leaves out a scheme's default port. */
  readonly port: string;
  readonly path: string;
  readonly search: string;
}

function namedEndpoint(argument: string | undefined, environment: Environment): [text: string, source: string] {
  if (argument !== undefined) return [argument.trim(), "argument"];
  for (const variable of ENDPOINT_VARIABLES) {
    // An empty variable counts as unset everywhere in OpenTelemetry.
    const text = environment[variable]?.trim();
    if (text) return [text, variable];
  }
  return [DEFAULT_ENDPOINT, "default"];
}

function parsed(text: string, source: string): Parsed {
  const fail = (what: string) => new EndpointError(`${label(source)} "${text}" ${what}; ${ACCEPTED}`, source);
  if (/[\s\p{Cc}]/u.test(text)) throw fail("contains white space");
  const full = text.includes("://") ? text : `http://${text}`;
  const scheme = full.slice(0, full.indexOf("://"));
  if (!/^https?$/i.test(scheme)) throw fail(`has the scheme "${scheme}"`);
  let url: URL;
  try {
    url = new URL(full);
  } catch {
    throw fail("names no host and port");
  }
  const written = /^[^/?#]*?:(\d*)(?:[/?#]|$)/.exec(
    full.slice(scheme.length + "://".length).replace(/^[^/?#]*@|\[.*?\]/g, ""),
  );
  const port = url.port || (written?.[1] ?? "");
  if (url.hostname === "" || port === "0") throw fail("names no host and port");
  const credentials = url.username && `${url.username}${url.password && `:${url.password}`}@`;
  const path = url.pathname === "/" && !/[^/]\/(?:[?#]|$)/.test(full) ? "" : url.pathname;
  return { protocol: url.protocol, credentials, hostname: url.hostname, port, path, search: url.search };
}

function hostOf(url: Parsed): string {
  return url.credentials + url.hostname;
}

function namedProtocol(argument: string | undefined, environment: Environment): Protocol | undefined {
  const named = [
    ["protocol", argument] as const,
    ...PROTOCOL_VARIABLES.map((name) => [name, environment[name]] as const),
  ];
  for (const [source, text] of named) {
    const value = text?.trim();
    if (!value) continue;
    if (value === "grpc" || value === "http/protobuf") return value;
    const message = `${source} "${value}" is not supported; use grpc or http/protobuf`;
    throw new EndpointError(message, source === "protocol" ? "argument" : source);
  }
  return undefined;
}

function impliedProtocol(url: Parsed): Protocol {
  return url.port === HTTP_PORT || url.path.replace(/\/+/g, "") !== "" ? "http/protobuf" : "grpc";
}

function noteOn(url: Parsed, protocol: Protocol): string | undefined {
  const usual = { [GRPC_PORT]: "grpc", [HTTP_PORT]: "http/protobuf" }[url.port];
  if (usual !== undefined && usual !== protocol) {
    return `port ${url.port} normally speaks ${usual}, but ${protocol} was asked for; init({ protocol }) decides for this library alone`;
  }
  if (protocol === "grpc" && url.path.replace(/\/+/g, "") !== "") {
    return `the path "${url.path}" has no meaning in gRPC and is not used`;
  }
  return undefined;
}

function label(source: string): string {
  return source === "argument" || source === "default" ? "endpoint" : source;
}
