/** `init()`, `flush()` and `shutdown()`: the process default, and the way of the spans out of the process. */

import type { TracerProvider } from "@opentelemetry/api";
import {
  defaultResource,
  detectResources,
  envDetector,
  type Resource,
  resourceFromAttributes,
} from "@opentelemetry/resources";
import { AlwaysOffSampler, NodeTracerProvider } from "@opentelemetry/sdk-trace-node";
import { encodeId, encodeTags, OPERATOR_ID, PROJECT, TAGS, WORKFLOW_NAME } from "../identity/conventions.js";
import { type EndUserId, type EndUserMetadata, encodeSession, endUserFrom } from "../identity/end-user.js";
import { setProcessDefault } from "../identity/process-default.js";
import { errorName, reason } from "../identity/refused.js";
import { warnOnce } from "../identity/warnings.js";
import type { Mask } from "../tracing/content.js";
import { chosenLeaving, setLeaving } from "../tracing/leaving.js";
import { warnUnknownOptions } from "../tracing/options.js";
import { checkedRoots, EndUserSpanProcessor, type Roots } from "../tracing/span-processor.js";
import { tracerProvider } from "../tracing/tracer.js";
import { chooseEndpoint, type Endpoint, EndpointError, type Protocol } from "./endpoint.js";
import { makeExporter } from "./exporter.js";
import { AddingExporter, OwnExport } from "./own-export.js";

const SERVICE_NAME = "service.name";

/** What `init()` takes. */
export interface InitOptions {
  /**
   * Sent as the header `x-api-key`; default `NEATLOGS_API_KEY`. It never goes to an endpoint that comes from the standard
   * `OTEL_*` variables, which may be another vendor's.
   */
  readonly apiKey?: string | undefined;
  /** Resource attribute `neatlogs.workflow_name`. */
  readonly workflowName?: string | undefined;
  /**
   * `http(s)://host:port`, `host:port` (plain text) or `unix:PATH`. Default: `NEATLOGS_ENDPOINT`, then the standard
   * `OTEL_EXPORTER_OTLP_*` variables, then `http://localhost:4317`, which is the processor.
   */
  readonly endpoint?: string | undefined;
  /** The operator, who runs this process: resource attribute `user.id`, and nothing else. Never an end user. */
  readonly userId?: EndUserId;
  /**
   * The end user of traces that name no other; for processes that serve one end user. A function is called once, now.
   */
  readonly endUserId?: EndUserId | (() => EndUserId);
  /** A JSON object about that end user, or a function that returns one. */
  readonly endUserMetadata?: EndUserMetadata | (() => EndUserMetadata);
  /** The session of traces that name no other. */
  readonly sessionId?: EndUserId | (() => EndUserId);
  /** Make up one session id for this process. Only traces whose end user comes from `init()` get it. */
  readonly autoSession?: boolean | undefined;
  /** Resource attribute `neatlogs.tags`: strings, or one string with commas. */
  readonly tags?: string | readonly string[] | null | undefined;
  /** Resource attribute `neatlogs.project`. */
  readonly project?: string | undefined;
  /**
   * A function from attributes to attributes. It runs before export, on our exporter only: once for each span, event and
   * link, and for a status message under the key `otel.status_description`. It sees everything but identity, session,
   * tags and span kind, which always stay. If it throws, these are all that is left.
   */
  readonly mask?: Mask | undefined;
  /** `false`: name end users, export nothing. */
  readonly export?: boolean | undefined;
  /** `"entry"`: a service behind a gateway that starts the traces; see `EndUserSpanProcessor`. */
  readonly roots?: Roots | undefined;
  /**
   * `grpc` or `http/protobuf`. Default: the standard variables, then by the endpoint (port 4318 or a path:
   * http/protobuf).
   */
  readonly protocol?: Protocol | undefined;
  /** Sent with every export, wherever it goes. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /**
   * A file of keys, one a line (`key-id secret`). Ids then leave this process as pseudonyms that the first key makes; here
   * they stay what they are. Default: `NEATLOGS_PSEUDONYMIZE_KEY_FILE`.
   */
  readonly pseudonymizeKeyFile?: string | undefined;
  /**
   * Which keys of metadata leave: strings, or one string with commas. `company.size` is a path too, `*` is everything.
   * Default: `NEATLOGS_METADATA_ALLOW`, then none with a key file, else everything.
   */
  readonly metadataAllow?: string | readonly string[] | ReadonlySet<string> | undefined;
}

const OPTIONS: readonly (keyof InitOptions)[] = [
  "apiKey",
  "workflowName",
  "endpoint",
  "userId",
  "endUserId",
  "endUserMetadata",
  "sessionId",
  "autoSession",
  "tags",
  "project",
  "mask",
  "export",
  "roots",
  "protocol",
  "headers",
  "pseudonymizeKeyFile",
  "metadataAllow",
];

/** What `init()` has set up: the provider that it made, and what is on it. A later `init()` changes what it does. */
interface Made {
  readonly provider: NodeTracerProvider;
  readonly naming: EndUserSpanProcessor;
  readonly export: OwnExport;
  /** Whether `shutdown()` was called since. */
  stopped: boolean;
}

let made: Made | undefined;

/**
 * Sets up tracing for this process: the end user by default, and export.
 *
 *     init({ workflowName: "support-bot" });                       // identity per request, by trace() or span()
 *     init({ workflowName: "batch-job", endUserId: "u_812" });     // a process that serves one end user
 *
 * Where there is no `TracerProvider` yet, one is made and registered. Where the application has registered one, it is
 * left as it is: a provider of OpenTelemetry's SDK takes its span processors when it is made, so
 * `new EndUserSpanProcessor()` belongs among them, and its own exporter sends to the processor; a warning says so where
 * that is missing.
 *
 * The service's name is that of `OTEL_SERVICE_NAME`, as anywhere in OpenTelemetry; without one, the workflow's name takes
 * the place of `unknown_service`. Sampling, batching, timeouts, compression and certificates follow the standard
 * variables too.
 *
 * Calling it again replaces the settings of the first call (the provider keeps its resource), with a warning. It also
 * works after `shutdown()`.
 *
 * @returns The `TracerProvider` in use, for instrumentations that take one.
 * @throws TypeError An option has a type that can never work, `roots`, `apiKey` or `headers` can never work, or the file
 *   of `pseudonymizeKeyFile` cannot be used.
 * @throws EndpointError `endpoint` or `protocol` can never work. In each case nothing was changed. What is wrong in an
 *   environment variable is a warning instead, and nothing is exported, or where it is the key file, no end user; bad
 *   identity is refused with a warning.
 */
export function init(options: InitOptions = {}): TracerProvider {
  if (typeof options !== "object" || options === null) throw new TypeError("init() takes an object of options");
  const { workflowName, endpoint, project, protocol, mask } = options;
  checkTexts({ apiKey: options.apiKey, workflowName, endpoint, project, protocol });
  if (mask !== undefined && typeof mask !== "function")
    throw new TypeError(`mask must be a function, not a ${typeof mask}`);
  const roots = checkedRoots(options.roots);
  const headers = checkedHeaders(options.headers);
  const apiKey = checkedApiKey(options.apiKey);
  const target = options.export === false ? undefined : destination(endpoint, protocol);
  const allowed = chosenLeaving(options, process.env);
  warnUnknownOptions(options, OPTIONS, "init()");
  setLeaving(allowed);
  setProcessDefault({
    endUser: endUserFrom("init", options.endUserId, options.endUserMetadata, "init()"),
    sessionId: encodeSession(options.sessionId, "init()"),
    autoSession: Boolean(options.autoSession),
  });
  const resource = resourceAttributes(options);
  const before = tracerProvider();
  if (before !== undefined && before !== made?.provider) {
    sayForeign(options.export !== false);
    return before;
  }
  if (made !== undefined && !made.stopped) {
    warnOnce("init_again", "", "init() was called again; its settings replace those of the earlier call.");
  }
  made ??= makeProvider(resource, roots);
  made.naming.entry = roots === "entry";
  made.stopped = false;
  setExport(made, target, apiKey, headers, resource, mask);
  return made.provider;
}

/**
 * Exports what has ended so far, where a process is about to be frozen or killed. Never rejects.
 *
 * A process that ends by itself flushes by itself; one that calls `process.exit()` or is ended by a signal does not.
 *
 * @param timeoutMillis How long to wait at most. What is still under way then goes on in the background.
 * @returns Whether everything was accepted in time. `true` where there is nothing to export.
 */
export async function flush(timeoutMillis = 10_000): Promise<boolean> {
  const current = made;
  if (current === undefined || current.stopped) return true;
  return accepted(current, () => current.provider.forceFlush(), timeoutMillis);
}

/**
 * Exports what has ended so far and stops exporting. `init()` starts it again. Never rejects.
 *
 * @param timeoutMillis How long to wait at most. What is still under way then goes on in the background.
 * @returns Whether everything was accepted in time. `true` where there is nothing to shut down.
 */
export async function shutdown(timeoutMillis = 10_000): Promise<boolean> {
  const current = made;
  if (current === undefined || current.stopped) return true;
  current.stopped = true;
  // The provider itself stays usable for a later init(): only its export stops.
  return accepted(current, () => current.export.shutdown(), timeoutMillis);
}

async function accepted(current: Made, work: () => Promise<unknown>, timeoutMillis: number): Promise<boolean> {
  const { failures } = current.export;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const wait = Number.isFinite(timeoutMillis) ? Math.min(Math.max(timeoutMillis, 0), 3_600_000) : 10_000;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), wait);
  });
  const done = work().then(
    () => current.export.failures === failures,
    () => false,
  );
  try {
    return await Promise.race([done, late]);
  } finally {
    clearTimeout(timer);
  }
}

function makeProvider(resource: Readonly<Record<string, string>>, roots: Roots): Made {
  const naming = new EndUserSpanProcessor({ roots });
  const ownExport = new OwnExport();
  const provider = new NodeTracerProvider({
    resource: named(
      defaultResource()
        .merge(detectResources({ detectors: [envDetector] }))
        .merge(resourceFromAttributes(resource)),
      resource[WORKFLOW_NAME],
    ),
    // The SDK for Node honours it; the provider alone does not.
    ...(process.env.OTEL_SDK_DISABLED?.trim().toLowerCase() === "true" ? { sampler: new AlwaysOffSampler() } : {}),
    spanProcessors: [naming, ownExport],
  });
  provider.register();
  // The timer of a batch does not keep a process alive, so one that has nothing left to do would end without it.
  process.once("beforeExit", () => void flush());
  return { provider, naming, export: ownExport, stopped: false };
}

/** The resource with a service name, where OpenTelemetry found none and the workflow's will do. */
function named(resource: Resource, workflowName: string | undefined): Resource {
  const found = String(resource.attributes[SERVICE_NAME] ?? "");
  if (workflowName === undefined || !/^(unknown_service.*)?$/.test(found)) return resource;
  return resource.merge(resourceFromAttributes({ [SERVICE_NAME]: workflowName }));
}

function setExport(
  current: Made,
  target: Endpoint | undefined,
  apiKey: string | undefined,
  headers: Readonly<Record<string, string>>,
  resource: Readonly<Record<string, string>>,
  mask: Mask | undefined,
): void {
  if (target !== undefined && apiKey !== undefined && !target.isOurs) {
    warnOnce(
      "api_key_not_sent",
      target.source,
      `The API key is not sent to ${target.url}, because that endpoint comes from ${target.source} and may be another ` +
        "vendor's. Name it by init({ endpoint }) or NEATLOGS_ENDPOINT to send the key there.",
    );
  }
  let exporter: AddingExporter | undefined;
  try {
    if (target !== undefined) {
      exporter = new AddingExporter(makeExporter(target, apiKey, headers), target.url, resource, mask);
    }
  } catch (error) {
    // The exporters read many more variables.
    warnOnce("no_export", errorName(error), `Nothing is exported: ${error instanceof Error ? error.message : ""}`);
  }
  const before = current.export.replace(exporter);
  before?.shutdown().catch(() => undefined);
}

function sayForeign(wantsExport: boolean): void {
  if (EndUserSpanProcessor.made === 0) {
    warnOnce(
      "foreign_provider",
      "naming",
      "The application has registered a TracerProvider, which init() leaves as it is. Traces that others open there get " +
        "no end user: add new EndUserSpanProcessor() to the provider's spanProcessors.",
    );
  }
  if (wantsExport) {
    warnOnce(
      "foreign_provider",
      "export",
      "The application has registered a TracerProvider, which init() leaves as it is: it exports nothing there, and " +
        "endpoint, apiKey, headers, userId, workflowName, project, tags and mask have no effect. Export to the processor " +
        "in that setup and pass { export: false }, or call init() instead of it.",
    );
  }
}

function resourceAttributes(options: InitOptions): Record<string, string> {
  const texts = {
    [OPERATOR_ID]: encoded(encodeId, "userId", options.userId),
    [WORKFLOW_NAME]: options.workflowName,
    [PROJECT]: options.project,
    [TAGS]: encoded(encodeTags, "tags", options.tags),
  };
  const found: Record<string, string> = {};
  for (const [key, text] of Object.entries(texts)) if (text !== undefined && text.trim() !== "") found[key] = text;
  return found;
}

function encoded(encode: (value: unknown) => string | undefined, name: string, value: unknown): string | undefined {
  try {
    return encode(value);
  } catch (error) {
    const verb = name.endsWith("s") ? "are" : "is";
    warnOnce("init_refused", name, `${name} of init() ${verb} refused, because ${reason(error)}.`);
    return undefined;
  }
}

function checkTexts(texts: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(texts)) {
    if (value !== undefined && typeof value !== "string") {
      throw new TypeError(`${name} must be a string, not a ${typeof value}`);
    }
  }
}

const SENDABLE = /^[\x20-\x7e]*$/;

function checkedHeaders(headers: unknown): Record<string, string> {
  if (headers === undefined) return {};
  if (typeof headers !== "object" || headers === null) throw new TypeError("headers must be an object of strings");
  for (const [name, value] of Object.entries(headers)) {
    if (typeof value !== "string") throw new TypeError("headers must be an object of strings");
    if (name === "" || name.includes(" ") || !SENDABLE.test(name + value)) {
      throw new TypeError(`header ${JSON.stringify(name)} cannot be sent: use printable ASCII`);
    }
  }
  return { ...headers };
}

function checkedApiKey(argument: string | undefined): string | undefined {
  const key = (argument ?? process.env.NEATLOGS_API_KEY ?? "").trim();
  if (SENDABLE.test(key)) return key || undefined;
  if (argument !== undefined) throw new TypeError("apiKey has characters that cannot be sent in a header");
  warnOnce("api_key", "", "NEATLOGS_API_KEY has characters that cannot be sent in a header, so no key is sent.");
  return undefined;
}

/** Where to export; `undefined`, with a warning, where the environment names what can never work. */
function destination(endpoint: string | undefined, protocol: string | undefined): Endpoint | undefined {
  try {
    const chosen = chooseEndpoint(endpoint, protocol, process.env);
    if (chosen.note !== undefined) warnOnce("endpoint", chosen.url, `Exporting to ${chosen.url}: ${chosen.note}.`);
    return chosen;
  } catch (error) {
    // Whoever changes the environment of a service must not be able to stop it.
    if (!(error instanceof EndpointError) || error.source === "argument") throw error;
    warnOnce("no_export", error.source, `Nothing is exported: ${error.message}.`);
    return undefined;
  }
}
