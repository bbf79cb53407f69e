/** `init()`, `flush()` and `shutdown()`: one process that is set up again and again, and what arrives at a receiver. */

import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { context as contextApi, trace as traceApi } from "@opentelemetry/api";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, test } from "vitest";
import { reset } from "../../src/identity/warnings.js";
import { flush, type InitOptions, init, onWarning, shutdown, trace } from "../../src/node/index.js";

interface Received {
  readonly url: string | undefined;
  readonly headers: IncomingHttpHeaders;
  /** Strings stand in protobuf as they are. */
  readonly body: string;
}

const received: Received[] = [];
const said: string[] = [];
let server: Server;
let endpoint: string;
let status = 200;

beforeAll(async () => {
  server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    received.push({ url: request.url, headers: request.headers, body: Buffer.concat(chunks).toString("latin1") });
    response.writeHead(status, { "content-type": "application/x-protobuf" }).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
});

afterAll(() => {
  server.closeAllConnections();
  server.close();
});

const VARIABLES = [
  "NEATLOGS_API_KEY",
  "NEATLOGS_ENDPOINT",
  "OTEL_EXPORTER_OTLP_ENDPOINT",
  "OTEL_EXPORTER_OTLP_HEADERS",
  "OTEL_EXPORTER_OTLP_PROTOCOL",
];

beforeEach(() => {
  for (const name of VARIABLES) delete process.env[name];
  received.length = 0;
  said.length = 0;
  status = 200;
  onWarning((message) => said.push(message));
});

afterEach(async () => {
  await shutdown();
  reset();
});

function setUp(options: InitOptions = {}): void {
  init({ endpoint, protocol: "http/protobuf", ...options });
}

const REST = { endUserId: "alice" };

describe("what is sent", () => {
  it("goes to /v1/traces with the API key, the headers of the application and none of the standard variables", async () => {
    process.env.OTEL_EXPORTER_OTLP_HEADERS = "authorization=of-another-vendor";
    setUp({ apiKey: "nlk_1", headers: { "X-Team": "shop" }, project: "p1", userId: 7, tags: ["beta", "eu"] });
    trace({ name: "chat", ...REST }, () => undefined);
    expect(await flush()).toBe(true);
    const [{ url, headers, body }] = received as [Received];
    expect(url).toBe("/v1/traces");
    expect(headers).toMatchObject({ "x-api-key": "nlk_1", "x-team": "shop" });
    expect(headers.authorization).toBeUndefined();
    expect(process.env.OTEL_EXPORTER_OTLP_HEADERS).toBe("authorization=of-another-vendor");
    for (const text of [
      "neatlogs.end_user.id",
      "alice",
      "neatlogs.project",
      "p1",
      "user.id",
      "neatlogs.tags",
      "beta,eu",
    ]) {
      expect(body).toContain(text);
    }
    expect(said).toEqual([]);
  });

  it("goes to an endpoint of the standard variables with their headers and without the API key, which is said", async () => {
    process.env.OTEL_EXPORTER_OTLP_ENDPOINT = endpoint;
    process.env.OTEL_EXPORTER_OTLP_HEADERS = "authorization=of-another-vendor";
    init({ apiKey: "nlk_1", protocol: "http/protobuf" });
    trace({ name: "chat" }, () => undefined);
    expect(await flush()).toBe(true);
    const [{ headers }] = received as [Received];
    expect(headers.authorization).toBe("of-another-vendor");
    expect(headers["x-api-key"]).toBeUndefined();
    expect(said.join()).toContain("API key is not sent");
    expect(said.join()).not.toContain("nlk_1");
  });

  it("has the API key of NEATLOGS_API_KEY where none is given", async () => {
    process.env.NEATLOGS_API_KEY = "nlk_2";
    setUp();
    trace({ name: "chat" }, () => undefined);
    await flush();
    expect(received[0]?.headers["x-api-key"]).toBe("nlk_2");
  });

  it("has passed the mask, which sees no identity and cannot name any", async () => {
    const seen: string[] = [];
    setUp({
      mask: (attributes) => {
        seen.push(...Object.keys(attributes));
        return { ...attributes, secret: "masked", "neatlogs.end_user.id": "mallory" };
      },
    });
    trace({ name: "chat", ...REST, attributes: { secret: "in clear" } }, () =>
      trace({ name: "child", attributes: { secret: "in clear" } }, () => undefined),
    );
    await flush();
    expect(seen).toEqual(["secret", "secret"]);
    expect(received[0]?.body).toContain("masked");
    expect(received[0]?.body).toContain("alice");
    expect(received[0]?.body).not.toMatch(/in clear|mallory/);
  });

  it("is nothing with export: false", async () => {
    setUp({ export: false });
    trace({ name: "chat" }, () => undefined);
    expect(await flush()).toBe(true);
    expect(received).toEqual([]);
  });
});

describe("when it cannot be sent", () => {
  it("flush() says false, and one warning names the endpoint", async () => {
    status = 400;
    setUp();
    trace({ name: "chat" }, () => undefined);
    expect(await flush()).toBe(false);
    expect(said).toHaveLength(1);
    expect(said[0]).toContain(`${endpoint}v1/traces`);
  });

  it("flush() waits no longer than it is told", async () => {
    setUp();
    trace({ name: "chat" }, () => undefined);
    expect(await flush(0)).toBe(false);
  });
});

describe("setting up again", () => {
  it("replaces the settings, with a warning; after shutdown() without one", async () => {
    setUp({ endUserId: "first" });
    setUp({ endUserId: "second" });
    expect(said).toEqual([expect.stringContaining("called again")]);
    expect(await shutdown()).toBe(true);
    expect(await shutdown()).toBe(true);
    setUp({ endUserId: "third" });
    trace({ name: "chat" }, () => undefined);
    await flush();
    expect(received.map(({ body }) => /first|second|third/.exec(body)?.[0])).toEqual(["third"]);
    expect(said).toHaveLength(1);
  });

  it("gives traces of the process's own end user one session where asked, and nobody else's", async () => {
    setUp({ endUserId: "u_812", autoSession: true });
    const sessionOf = (options = {}) =>
      trace({ name: "chat", ...options }, (span) => (span as never as { attributes: object }).attributes as never)[
        "neatlogs.session.id"
      ];
    expect(sessionOf()).toMatch(/^[0-9a-f-]{36}$/);
    expect(sessionOf()).toBe(sessionOf());
    expect(sessionOf({ endUserId: "alice" })).toBeUndefined();
    expect(said).toEqual([expect.stringContaining("autoSession")]);
  });
});

describe("an option that can never work throws, and nothing was changed", () => {
  test.each([
    [{ apiKey: 5 }],
    [{ apiKey: "ключ" }],
    [{ endpoint: "ftp://a" }],
    [{ protocol: "http/json" }],
    [{ roots: "child" }],
    [{ mask: "x" }],
    [{ headers: { a: 1 } }],
    [{ headers: { "a b": "1" } }],
    [{ workflowName: 5 }],
  ])("%o", async (options) => {
    setUp({ endUserId: "before" });
    expect(() => init(options as InitOptions)).toThrow();
    trace({ name: "chat" }, () => undefined);
    await flush();
    expect(received[0]?.body).toContain("before");
  });
});

describe("what is wrong elsewhere is a warning", () => {
  it("in the environment: nothing is exported", async () => {
    process.env.NEATLOGS_ENDPOINT = "ftp://a";
    init();
    expect(said).toEqual([expect.stringMatching(/Nothing is exported: NEATLOGS_ENDPOINT "ftp:\/\/a"/)]);
  });

  it("in identity: it is refused", () => {
    setUp({ endUserId: true as never, userId: Number.NaN, tags: 7 as never, export: false });
    expect(said).toHaveLength(3);
  });

  it("in the name of an option: it asks what was meant", () => {
    setUp({ endUser: "alice", export: false } as InitOptions);
    expect(said).toEqual([expect.stringContaining("Was endUserId meant?")]);
  });
});

describe("a provider that the application has registered", () => {
  it("is left as it is, and the warning says what to add", async () => {
    const { NodeTracerProvider } = await import("@opentelemetry/sdk-trace-node");
    traceApi.disable();
    contextApi.disable();
    const provider = new NodeTracerProvider();
    provider.register();
    expect(init({ endpoint })).toBe(provider);
    expect(said.join()).toContain("export: false");
    trace({ name: "chat" }, () => undefined);
    expect(await flush()).toBe(true);
    expect(received).toEqual([]);
  });
});
