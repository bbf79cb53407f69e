// What a user of the package may write, and what the compiler refuses: compiled, never run.

import { type InitOptions, identify, init, setEndUser, span, trace, wrap } from "neatlogs-otel";
import { Neatlogs } from "neatlogs-otel/browser";

interface Request {
  readonly user: { readonly id: string; readonly plan: string };
}

const options: InitOptions = { workflowName: "shop", endUserMetadata: { plan: "pro" } };
init(options);

// Options are read with the function's arguments, which need no annotation there.
const chat = span(
  { kind: "WORKFLOW", endUserId: (request) => request.user.id, endUserMetadata: (request) => request.user },
  async (request: Request, text: string): Promise<number> => text.length + request.user.id.length,
);
const length: Promise<number> = chat({ user: { id: "u", plan: "pro" } }, "text");

const words = span({ name: "words" }, function* (): Generator<string> {
  yield "one";
});
for (const word of words()) word.toUpperCase();

const text: string = trace({ name: "chat", endUserId: 7n }, (span) => span.spanContext().traceId);
const later: Promise<string> = trace({ name: "chat", endUserId: () => "u" }, async () => text);
const named: boolean = setEndUser("u", { plan: "pro" });
const client: { ask(question: string): Promise<string> } = wrap({ ask: async (question: string) => question });
const answer: Promise<string> = identify({ endUserId: "u", sessionId: 5 }, () => client.ask("?"));

// @ts-expect-error A near miss is found at compile time.
trace({ name: "chat", endUser: "u" }, () => undefined);
// @ts-expect-error A boolean is no id.
trace({ name: "chat", endUserId: true }, () => undefined);
// @ts-expect-error Neither is a promise.
setEndUser(Promise.resolve("u"));

export const nl = new Neatlogs({ endUser: "u_812" });
export { answer, later, length, named };
