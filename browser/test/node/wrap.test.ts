/** `wrap()`: each outermost call on a client becomes a trace of its own. */

import { setTimeout as pause } from "node:timers/promises";
import { context as contextApi, SpanStatusCode, trace as traceApi } from "@opentelemetry/api";
import { suppressTracing } from "@opentelemetry/core";
import { describe, expect, it } from "vitest";
import { identify, trace, wrap } from "../../src/node/index.js";
import { type Recording, recorded, said, saidOnce, startUnused } from "../support/recording.js";

startUnused();

/** As the clients of models are made: resources, private members, and answers that are promises of their own kind. */
class Answer<T> extends Promise<T> {
  #parsed: Promise<T> | undefined;
  readonly #response: Promise<T>;

  constructor(response: Promise<T>) {
    super((resolve) => resolve(undefined as T));
    this.#response = response;
  }

  // biome-ignore lint/suspicious/noThenProperty: so are these answers made
  override then<A = T, B = never>(
    onFulfilled?: ((value: T) => A | PromiseLike<A>) | null,
    onRejected?: ((error: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.#parsed ??= this.#response.then((value) => value);
    return this.#parsed.then(onFulfilled, onRejected);
  }

  async withResponse(): Promise<{ data: T; response: object }> {
    return { data: await this.#response, response: {} };
  }

  static override get [Symbol.species]() {
    return Promise;
  }
}

class Stream implements AsyncIterable<string> {
  closed = false;

  async *[Symbol.asyncIterator]() {
    try {
      for (const word of ["one", "two"]) {
        await pause(1);
        inner("in the stream");
        yield word;
      }
    } finally {
      this.closed = true;
    }
  }

  async finalText(): Promise<string> {
    return "one two";
  }
}

let recording: Recording;

function inner(name: string): void {
  recording.tracer.startSpan(name).end();
}

class Completions {
  readonly #calls: string[] = [];

  create(request: { stream?: boolean; fails?: boolean }): Answer<unknown> {
    this.#calls.push("create");
    inner("request");
    return new Answer(
      (async () => {
        await pause(1);
        inner("answered");
        if (request.fails) throw new TypeError("no such model");
        return request.stream ? new Stream() : { text: "hello" };
      })(),
    );
  }

  count(): number {
    return this.#calls.length;
  }

  parse(request: object): Answer<unknown> {
    return this.create(request);
  }
}

class Chat {
  readonly completions = new Completions();
}

class OpenAI {
  readonly chat = new Chat();
  readonly options = { timeout: 10 };
  baseUrl = "http://localhost";

  withOptions(): OpenAI {
    return new OpenAI();
  }

  close(): this {
    return this;
  }
}

function client(): OpenAI {
  recording = recorded();
  return wrap(new OpenAI());
}

const parents = (): Record<string, string | undefined> =>
  Object.fromEntries(
    recording.spans.map((span) => [
      span.name,
      recording.spans.find((other) => other.spanContext().spanId === span.parentSpanContext?.spanId)?.name,
    ]),
  );

describe("a call", () => {
  it("gets a root of its own, under which everything of it runs, with the end user of identify()", async () => {
    const openai = client();
    const answer = await identify({ endUserId: "alice" }, () => openai.chat.completions.create({}));
    expect(answer).toEqual({ text: "hello" });
    const root = "OpenAI.chat.completions.create";
    expect(parents()).toEqual({ request: root, answered: root, [root]: undefined });
    expect(recording.idOf(root)).toBe("alice");
    expect(recording.named(root).attributes["openinference.span.kind"]).toBe("WORKFLOW");
  });

  it("gets none inside an open trace", async () => {
    const openai = client();
    await trace({ name: "chat" }, () => openai.chat.completions.create({}));
    expect(parents()).toEqual({ request: "chat", answered: "chat", chat: undefined });
  });

  it("gets none where tracing is suppressed", async () => {
    const openai = client();
    await contextApi.with(suppressTracing(contextApi.active()), () => openai.chat.completions.create({}));
    expect(recording.spans).toEqual([]);
  });

  it("that calls another one of the client is one trace", async () => {
    await client().chat.completions.parse({});
    expect(recording.spans.filter((span) => span.parentSpanContext === undefined)).toHaveLength(1);
  });

  it("that rejects is recorded, and its error arrives as it is", async () => {
    const openai = client();
    await expect(openai.chat.completions.create({ fails: true })).rejects.toThrow(TypeError);
    const { status } = recording.named("OpenAI.chat.completions.create");
    expect(status).toEqual({ code: SpanStatusCode.ERROR, message: "TypeError: no such model" });
  });

  it("answers other questions than then, too", async () => {
    const openai = client();
    const { data } = await openai.chat.completions.create({}).withResponse();
    expect(data).toEqual({ text: "hello" });
    expect(recording.named("OpenAI.chat.completions.create").ended).toBe(true);
    expect(await openai.chat.completions.create({}).catch(() => 0)).toEqual({ text: "hello" });
    expect(await openai.chat.completions.create({}).finally(() => 0)).toEqual({ text: "hello" });
  });
});

describe("a stream", () => {
  const root = () => recording.spans.find((span) => span.name === "OpenAI.chat.completions.create");
  const stream = async () => (await client().chat.completions.create({ stream: true })) as Stream;

  it("keeps the root open until it is exhausted, and what it does lands below the root", async () => {
    const words: string[] = [];
    const reading = await stream();
    expect(root()).toBeUndefined();
    for await (const word of reading) words.push(word);
    expect(words).toEqual(["one", "two"]);
    expect(root()?.ended).toBe(true);
    expect(parents()["in the stream"]).toBe("OpenAI.chat.completions.create");
  });

  it("that is read no further ends the root and is closed", async () => {
    const reading = await stream();
    for await (const _ of reading) break;
    expect(root()?.ended).toBe(true);
    expect(reading.closed).toBe(true);
  });

  it("that is read in another request still belongs to its own call", async () => {
    const reading = await stream();
    await trace({ name: "other request", endUserId: "bob" }, async () => {
      for await (const _ of reading);
    });
    expect(parents()["in the stream"]).toBe("OpenAI.chat.completions.create");
    expect(recording.idOf("other request")).toBe("bob");
  });

  it("is over when a method answers at its end", async () => {
    expect(await (await stream()).finalText()).toBe("one two");
    expect(root()?.ended).toBe(true);
  });

  it("comes beside the response as well", async () => {
    const { data } = await client().chat.completions.create({ stream: true }).withResponse();
    expect(root()).toBeUndefined();
    for await (const _ of data as Stream);
    expect(root()?.ended).toBe(true);
  });

  it("is an instance of its class", async () => {
    expect(await stream()).toBeInstanceOf(Stream);
  });
});

describe("the wrapped client", () => {
  it("behaves as the client does", () => {
    const openai = client();
    expect(openai).toBeInstanceOf(OpenAI);
    expect(openai.chat).toBe(openai.chat);
    expect(openai.chat.completions.create).toBe(openai.chat.completions.create);
    expect(openai.options).toEqual({ timeout: 10 });
    openai.baseUrl = "http://elsewhere";
    expect(openai.baseUrl).toBe("http://elsewhere");
    expect(openai.chat.completions.count()).toBe(0);
    expect(openai.close()).toBe(openai);
    expect(wrap(openai)).toBe(openai);
  });

  it("makes copies that are wrapped, without a trace for that", async () => {
    const copy = client().withOptions();
    expect(recording.spans).toEqual([]);
    await copy.chat.completions.create({});
    expect(recording.named("OpenAI.chat.completions.create").ended).toBe(true);
  });
});

describe("a function", () => {
  it("gets a root for each call and keeps this, its arguments and its result", () => {
    recording = recorded();
    const add = wrap(function add(this: { base: number }, more: number) {
      inner("work");
      return this.base + more;
    });
    expect(add.call({ base: 1 }, 2)).toBe(3);
    expect(parents()).toEqual({ work: "add", add: undefined });
  });

  it("that throws is recorded", () => {
    recording = recorded();
    const fail = wrap(() => {
      throw new RangeError("no");
    });
    expect(fail).toThrow(RangeError);
    expect(recording.spans[0]?.status.code).toBe(SpanStatusCode.ERROR);
  });

  it("that generates keeps its root open", () => {
    recording = recorded();
    const words = wrap(function* words() {
      inner("step");
      yield 1;
      yield 2;
    });
    expect([...words()]).toEqual([1, 2]);
    expect(parents()).toEqual({ step: "words", words: undefined });
  });

  it("may be a class, whose instances are then wrapped", async () => {
    recording = recorded();
    const Wrapped = wrap(OpenAI);
    const openai = new Wrapped();
    expect(openai).toBeInstanceOf(OpenAI);
    await openai.chat.completions.create({});
    expect(recording.named("OpenAI.chat.completions.create").ended).toBe(true);
  });
});

it("returns what cannot be wrapped as it is, with a warning", () => {
  expect(wrap(5)).toBe(5);
  saidOnce("wrap()", "number");
});

it("leaves nothing active behind", async () => {
  const openai = client();
  await openai.chat.completions.create({});
  expect(traceApi.getActiveSpan()).toBeUndefined();
  expect(said).toEqual([]);
});
