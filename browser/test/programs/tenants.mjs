// A multi-tenant program: node tenants.mjs ENDPOINT [grpc|http/protobuf]. It sends its traces there and ends by itself.

import { trace as traceApi } from "@opentelemetry/api";
import { identify, init, setEndUser, span, trace } from "neatlogs-otel";

init({
  endpoint: process.argv[2],
  protocol: process.argv[3],
  apiKey: "key-of-the-test",
  workflowName: "support-bot",
  project: "shop",
  userId: "operator-7",
  tags: ["beta", "eu"],
});

const pause = () => new Promise((resolve) => setTimeout(resolve, 1));

const search = span({ name: "search", kind: "TOOL", captureInput: true, captureOutput: true }, async (query) => {
  await pause();
  // What the rule is there for: code below the root that writes the keys by hand.
  traceApi.getActiveSpan()?.setAttribute("neatlogs.end_user.id", "u_forged");
  return `results for ${query}`;
});

const chat = span(
  {
    name: "chat",
    kind: "WORKFLOW",
    endUserId: (request) => request.user.id,
    endUserMetadata: (request) => request.user,
  },
  async (request) => search(request.text),
);

const stream = span({ name: "stream", endUserId: (user) => user }, async function* stream() {
  for (const word of ["one ", "two"]) {
    await pause();
    yield word;
  }
});

async function read(user) {
  let text = "";
  for await (const word of stream(user)) text += word;
  return text;
}

await Promise.all([
  ...Array.from({ length: 20 }, (_, at) =>
    chat({ text: "and now?", user: { id: `u_${at}`, plan: at % 2 ? "pro" : "free" } }),
  ),
  ...Array.from({ length: 5 }, (_, at) => read(`s_${at}`)),
  trace({ name: "late" }, async () => {
    await search("who?");
    if (!setEndUser("u_late")) throw new Error("nobody was named");
  }),
  identify({ endUserId: "u_identified", sessionId: "conversation-1" }, () =>
    traceApi.getTracer("an.instrumentation").startActiveSpan("POST /v1/chat", async (root) => {
      await search("here?");
      root.end();
    }),
  ),
]);
