// A multi-tenant program as written for the published neatlogs package for Node.
//
// Run as `node client.cjs http://127.0.0.1:PORT`; it sends its traces and log lines there and ends.
const { flush, identify, init, log, shutdown, span, trace } = require("neatlogs");

async function main() {
  await init({
    apiKey: "key-of-the-test",
    endpoint: process.argv[2],
    workflowName: "support-bot",
    userId: "operator-7",
    captureLogs: true,
    registerShutdownHandlers: false,
  });
  const search = span({ kind: "TOOL", name: "search" }, (query) =>
    trace({ name: "step" }, async (step) => {
      // What the rule is there for: code below the root that writes the keys by hand.
      step.setAttribute("neatlogs.end_user.id", "u_forged");
      log("found the order");
      return `results for ${query}`;
    }),
  );
  const decorated = span(
    { kind: "WORKFLOW", name: "decorated", endUserId: "u_decorated", endUserMetadata: { plan: "pro" } },
    (question) => search(question),
  );
  const anonymous = span({ kind: "WORKFLOW", name: "anonymous" }, (question) => search(question));
  await decorated("and now?");
  await trace({ name: "managed", kind: "WORKFLOW", endUserId: "u_managed" }, () => search("and here?"));
  await anonymous("who am I?");
  await identify({ endUserId: "u_identified" }, () => anonymous("and I?"));
  await flush();
  await shutdown();
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
