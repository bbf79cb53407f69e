// What a page does with the published neatlogs/browser client. Node and a real browser both run it; it returns what the
// client answered, by name, and what it said of errors.
module.exports = async function scenario(Neatlogs, endpoint, apiKey) {
  const errors = [];
  const onError = (error) => errors.push(String(error));
  const answers = {};

  // Logged in: the client's own user, session and project on each trace.
  const own = new Neatlogs({
    apiKey,
    endpoint,
    project: "shop",
    endUserId: "u_812",
    endUserMetadata: { plan: "pro" },
    sessionId: "s_1",
    onError,
  });
  answers.tracked = await own.trackAI({
    name: "tracked",
    model: "gpt-4o",
    input: [{ role: "user", content: "Where is my order?" }],
    output: "On its way.",
    tokens: { prompt: 10, completion: 5, total: 15 },
    metadata: { page: "/orders" },
    duration_ms: 1200,
  });
  answers.overridden = await own.trackAI({
    name: "overridden",
    input: "hi",
    endUserId: "u_999",
    endUserMetadata: { plan: "free" },
    sessionId: "s_2",
  });
  const nested = {
    name: "nested",
    children: [
      { name: "retrieve", query: "refunds", documents: [{ id: "d1", content: "30 days", score: 0.9 }], duration_ms: 120 },
      {
        name: "answer",
        model: "gpt-4o",
        output: "You have 30 days.",
        tokens: { prompt: 7, completion: 3 },
        // Ignored: one end user a trace, and the root names it.
        endUserId: "u_child",
        endUserMetadata: { plan: "child" },
        attributes: { "neatlogs.end_user.id": "u_attribute", "neatlogs.llm.temperature": 0.7 },
        logs: [{ level: "warn", message: "slow" }],
        children: [{ name: "lookup", tool_name: "orders", status: "error", error: "timeout", endUser: "u_deep" }],
      },
    ],
  };
  answers.nested = await own.trace(nested);
  // Sent again, as after an answer that was lost.
  answers.again = await own.trace(nested);
  const open = own.startTrace({ name: "streamed", model: "gpt-4o", input: "tell me" });
  answers.streamed = await open.finish({ output: "a story", tokens: { prompt: 2, completion: 90 } });

  // Nobody is logged in. `endUser` is a name that these clients do not know and send as it is.
  const anonymous = new Neatlogs({ apiKey, endpoint, onError });
  answers.anonymous = await anonymous.trackAI({ name: "anonymous", input: "who am I?" });
  answers.raw = await anonymous.trackAI({ name: "raw", input: "and I?", endUser: "u_raw", endUserMetadata: { plan: "team" } });

  answers.refused = await anonymous.trace({ name: "refused", children: [{ name: "step", duration_ms: -1 }] });
  return { answers, errors };
};
