// A web page and its server in one trace, under the end user who is logged in to the page.
//
//   make run             # the processor, in one terminal; it lets http://localhost:5173 send (--cors-origins)
//   make page-example    # this, in another; then open http://localhost:5173
//
// With --visit it opens the page itself, in a chromium without a window, plays one visit and ends. --port says otherwise
// than http://localhost:5173. --endpoint is the processor's OTLP/HTTP, as the page reaches it; by default it follows
// NEATLOGS_ENDPOINT and OTEL_EXPORTER_OTLP_ENDPOINT, as the server does, else it is http://localhost:4318.
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { context, propagation, ROOT_CONTEXT } from "@opentelemetry/api";
import { init, shutdown, trace } from "neatlogs-otel";
import { otlpHttp } from "./otlp_http.mjs";

const { values: options } = parseArgs({
  options: {
    port: { type: "string", default: "5173" },
    endpoint: { type: "string", default: otlpHttp(process.env) },
    visit: { type: "boolean", default: false },
  },
});
// The server's own spans go where the shim sends them by default, as those of the other examples.
init({ workflowName: "support-chat" });

const file = (path, type) => ({ type, content: readFileSync(new URL(path, import.meta.url)) });
const FILES = {
  "/": file("page.html", "text/html"),
  "/page.js": file("page.js", "text/javascript"),
  "/neatlogs.min.js": file("../dist/browser/neatlogs.min.js", "text/javascript"),
};
// The page needs no more than its own scripts and the two places that it talks to.
const POLICY = `default-src 'none'; script-src 'self'; img-src data:; connect-src 'self' ${options.endpoint}`;

let visited;
const visit = new Promise((resolve) => {
  visited = resolve;
});

const server = createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://localhost");
  if (pathname in FILES) {
    const { type, content } = FILES[pathname];
    response.writeHead(200, { "content-type": type, "content-security-policy": POLICY }).end(content);
  } else if (pathname === "/settings") {
    response.end(JSON.stringify({ endpoint: options.endpoint }));
  } else if (pathname === "/api/answer") {
    // OpenTelemetry's HTTP instrumentation does this by itself: the request continues the trace of its traceparent.
    const from = propagation.extract(ROOT_CONTEXT, request.headers);
    const question = searchParams.get("question") ?? "";
    const answer = () => `It is on its way: ${question.length}.`;
    response.end(await context.with(from, () => trace({ name: "answer", kind: "CHAIN" }, answer)));
  } else if (pathname === "/visited") {
    visited((await request.toArray()).join(""));
    response.end();
  } else {
    response.writeHead(404).end();
  }
});

/** Open an address in a chromium without a window, with a profile of its own; returns how to close it. */
function open(url) {
  const names = [process.env.CHROMIUM, "chromium", "chromium-browser", "google-chrome"].filter(Boolean);
  const browser = names.find((name) => spawnSync(name, ["--version"]).status === 0);
  if (browser === undefined) return undefined;
  const profile = mkdtempSync(join(tmpdir(), "page-"));
  // It opens our own page and nothing else; as root, in containers, chromium does not start with its sandbox.
  const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"];
  const running = spawn(browser, [...flags, "--disable-sync", `--user-data-dir=${profile}`, url], {
    detached: true,
    stdio: "ignore",
  });
  return async () => {
    const gone = new Promise((resolve) => running.once("exit", resolve));
    // The browser and the processes that it started, and no others.
    process.kill(-running.pid, "SIGKILL");
    await gone;
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  };
}

server.listen(Number(options.port), "127.0.0.1", async () => {
  const address = `http://localhost:${server.address().port}`;
  if (!options.visit) {
    console.log(`Open ${address} and ask something. Ctrl-C ends it.`);
    return;
  }
  const close = open(`${address}/#visit`);
  if (close === undefined) console.log("Skipped: no chromium is installed (apt-get install chromium).");
  else console.log((await visit) || "Ada asked twice, and then nobody: three traces, two of them u_ada's.");
  await close?.();
  server.close();
  server.closeAllConnections();
  await shutdown();
});
