// The clients of OpenAI and Anthropic, wrapped: node model_clients.mjs ENDPOINT URL. It prints what they answered.
import Anthropic from "@anthropic-ai/sdk";
import { identify, init, trace, wrap } from "neatlogs-otel";
import OpenAI from "openai";

const [, , endpoint, url] = process.argv;
init({ endpoint, workflowName: "models" });

const settings = { apiKey: "test", maxRetries: 0 };
const openai = wrap(new OpenAI({ ...settings, baseURL: `${url}/v1` }));
const anthropic = wrap(new Anthropic({ ...settings, baseURL: url }));
const messages = [{ role: "user", content: "What is the answer?" }];
const answers = [];

const as = (endUserId, work) => identify({ endUserId }, work);

await Promise.all([
  as("whole", async () => {
    const answer = await openai.chat.completions.create({ model: "m", messages });
    answers.push(answer.choices[0].message.content);
  }),
  as("streamed", async () => {
    let text = "";
    for await (const chunk of await openai.chat.completions.create({ model: "m", messages, stream: true })) {
      text += chunk.choices[0]?.delta.content ?? "";
    }
    answers.push(text);
  }),
  as("with response", async () => {
    const { data, response } = await openai.chat.completions.create({ model: "m", messages }).withResponse();
    answers.push(`${response.status} ${data.choices[0].message.content}`);
  }),
  as("failed", async () => {
    const failed = openai.withOptions({ maxRetries: 0 }).chat.completions.create({ model: "fail-429", messages });
    answers.push(await failed.catch((error) => `${error instanceof OpenAI.RateLimitError}`));
  }),
  as("anthropic", async () => {
    const answer = await anthropic.messages.create({ model: "m", max_tokens: 10, messages });
    answers.push(answer.content[0].text);
  }),
  as("anthropic streamed", async () => {
    answers.push(await anthropic.messages.stream({ model: "m", max_tokens: 10, messages }).finalText());
  }),
  // The answer's promise is returned as it is: the span ends when it is read.
  trace({ name: "inside", endUserId: "inside" }, () => openai.chat.completions.create({ model: "m", messages })).then(
    (answer) => answers.push(answer.choices[0].message.content),
  ),
]);

for (const answer of answers.sort()) console.log(answer);
