// An HTTP service under OpenTelemetry's own instrumentation: node service.mjs ENDPOINT [trace|entry].
// It prints its port, serves GET /?user=... until its standard input ends, and then sends what it has.
import { createRequire } from "node:module";
import { registerInstrumentations } from "@opentelemetry/instrumentation";
import { HttpInstrumentation } from "@opentelemetry/instrumentation-http";
import { init, setEndUser, shutdown, trace } from "neatlogs-otel";

init({ endpoint: process.argv[2], workflowName: "node-service", roots: process.argv[3] ?? "trace" });
registerInstrumentations({ instrumentations: [new HttpInstrumentation()] });
// Required, not imported: the instrumentation sees what is loaded after it.
const http = createRequire(import.meta.url)("node:http");

const server = http.createServer((request, response) => {
  const { searchParams } = new URL(request.url, "http://localhost");
  const user = searchParams.get("user");
  if (user !== null && searchParams.has("late")) {
    setTimeout(() => {
      setEndUser(user);
      response.end("served");
    }, 1);
    return;
  }
  trace({ name: "answer", endUserId: user, endUserMetadata: user && { via: "node" } }, () => response.end("served"));
});

server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.resume();
process.stdin.on("end", async () => {
  server.close();
  server.closeAllConnections();
  await shutdown();
});
