// What runs in the page. `page.mjs` serves it.
import { Neatlogs } from "/neatlogs.min.js";

const { endpoint } = await (await fetch("/settings")).json();
const element = (id) => document.getElementById(id);

const nl = new Neatlogs({
  endpoint,
  project: "support-chat",
  sessionId: crypto.randomUUID(),
  traceparent: true,
  onError: (error) => {
    element("trouble").textContent = error.message;
  },
});

// Login and logout.
element("user").addEventListener("change", ({ target }) => {
  if (target.value) nl.setEndUser(target.value, { plan: "pro" });
  else nl.reset();
});

async function ask(question) {
  const trace = nl.startTrace({ name: "ask", input: question });
  // The page's own server: its span becomes a child of this trace.
  const answered = await trace.fetch(`/api/answer?question=${encodeURIComponent(question)}`);
  const answer = await answered.text();
  element("answer").textContent = answer;
  return trace.finish({ output: answer });
}

element("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask(element("question").value);
});

// `page.mjs --visit` opens the page like this: somebody logs in, asks twice, logs out, and nobody asks once more.
if (location.hash === "#visit") {
  let result = { ok: true };
  for (const user of ["u_ada", "u_ada", ""]) {
    element("user").value = user;
    element("user").dispatchEvent(new Event("change"));
    if (result.ok) result = await ask("Where is my order?");
  }
  const trouble = result.ok ? "" : element("trouble").textContent || result.error;
  await fetch("/visited", { method: "POST", body: trouble });
}
