// A service for many users: an HTTP server whose requests are served at the same time, one end user for each.
//
//   make run                                    # the processor, in one terminal
//   make node-example                           # this, in another: five people ask, two of them at length
//
// The traces go where the shim sends them by default: NEATLOGS_ENDPOINT, else OTEL_EXPORTER_OTLP_ENDPOINT, else
// http://localhost:4317.
import { createServer } from "node:http";
import { setTimeout as pause } from "node:timers/promises";
import { identify, init, setEndUser, shutdown, span, trace, wrap } from "neatlogs-otel";

init({ workflowName: "support-bot-node" });

const USERS = {
  "token-ada": { id: "u_ada", plan: "pro" },
  "token-grace": { id: "u_grace", plan: "free" },
  "token-linus": { id: "u_linus", plan: "free" },
};

/** A model that is no more than a few words, one after the other. */
class Model {
  async *complete(question) {
    for (const word of ["It", " is", " on", " its", " way:", ` ${question.length}`]) {
      await pause(5);
      yield word;
    }
  }
}

const model = wrap(new Model());

const search = span({ name: "search", kind: "TOOL", captureInput: true, captureOutput: true }, async (question) => {
  await pause(5);
  return [`order of "${question}"`];
});

async function answer(question) {
  await search(question);
  let text = "";
  for await (const word of model.complete(question)) text += word;
  return text;
}

const server = createServer(async (request, response) => {
  const { searchParams } = new URL(request.url ?? "/", "http://localhost");
  const question = searchParams.get("question") ?? "";
  // The user is known late: when the token has been looked up.
  await trace({ name: "answer", sessionId: searchParams.get("conversation") }, async () => {
    await pause(2);
    const user = USERS[request.headers.authorization ?? ""];
    setEndUser(user?.id, user && { plan: user.plan });
    response.end(await answer(question));
  });
});

const ask = (port, token, question, conversation) =>
  fetch(`http://127.0.0.1:${port}/?${new URLSearchParams({ question, conversation })}`, {
    headers: { authorization: token },
  }).then((response) => response.text());

server.listen(0, "127.0.0.1", async () => {
  const { port } = server.address();
  const answers = await Promise.all([
    ask(port, "token-ada", "Where is my order?", "ada-1"),
    ask(port, "token-ada", "And the invoice?", "ada-1"),
    ask(port, "token-grace", "Can I return it?", "grace-1"),
    ask(port, "token-linus", "Do you ship to Finland?", "linus-1"),
    ask(port, "no token", "Who am I?", "nobody-1"),
  ]);
  for (const text of answers) console.log(text);

  // A job that calls the model directly: wrap() opens the trace, identify() says whose it is.
  await identify({ endUserId: "u_ada", endUserMetadata: { plan: "pro" } }, async () => {
    for await (const _ of model.complete("a summary of the day"));
  });

  server.close();
  if (!(await shutdown())) process.exitCode = 1;
});
